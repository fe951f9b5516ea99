package token

import (
	"container/list"
	"crypto/rand"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kubeshim/shim/pkg/auth"
)

// letters are those of a simple token.
const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// simple is the table of simple tokens.
type simple struct {
	ttl time.Duration
	now func() time.Time

	mu     sync.Mutex
	tokens map[string]*list.Element // of login
	order  list.List                // of login: the one that ends first at the front
}

// login is a token in the table.
type login struct {
	token, username string
	ends            time.Time
}

func newSimple(ttl time.Duration, now func() time.Time) *simple {
	return &simple{ttl: ttl, now: now, tokens: make(map[string]*list.Element)}
}

// Prefix draws the random part.
func (*simple) Prefix() string {
	b := make([]byte, prefixLetters)
	for i := range b {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil {
			panic(err) // crypto/rand does not fail
		}
		b[i] = letters[n.Int64()]
	}
	return string(b)
}

// Issue has nothing to add to what was assigned.
func (*simple) Issue(_ string, _ uint64, assigned string) (string, error) { return assigned, nil }

// Index is the number at the end of the token; 0 of what is no token, which no table has.
func (*simple) Index(token string) uint64 {
	_, number, _ := strings.Cut(token, ".")
	index, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0
	}
	return index
}

// Info also renews the token.
func (s *simple) Info(token string, revision uint64) (auth.Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.expire(now)
	e := s.tokens[token]
	if e == nil {
		return auth.Info{}, false
	}
	l := e.Value.(*login)
	l.ends = now.Add(s.ttl)
	s.order.MoveToBack(e)
	return auth.Info{Username: l.username, Revision: revision}, true
}

// Assign implements Provider.
func (s *simple) Assign(username, token string, _ uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.expire(now)
	if e := s.tokens[token]; e != nil {
		s.drop(e)
	}
	if s.order.Len() == simpleTokensMax {
		s.drop(s.order.Front())
	}
	s.tokens[token] = s.order.PushBack(&login{token: token, username: username, ends: now.Add(s.ttl)})
}

// Invalidate implements Provider.
func (s *simple) Invalidate(username string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.order.Front(); e != nil; {
		next := e.Next()
		if e.Value.(*login).username == username {
			s.drop(e)
		}
		e = next
	}
}

// InvalidateAll implements Provider.
func (s *simple) InvalidateAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
	s.order.Init()
}

// expire drops the tokens whose time is over.
func (s *simple) expire(now time.Time) {
	for e := s.order.Front(); e != nil && now.After(e.Value.(*login).ends); e = s.order.Front() {
		s.drop(e)
	}
}

func (s *simple) drop(e *list.Element) {
	delete(s.tokens, s.order.Remove(e).(*login).token)
}
