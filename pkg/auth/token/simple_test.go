package token

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/kubeshim/shim/pkg/auth"
)

// clock is a clock that a test moves.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func (c *clock) pass(d time.Duration) { c.now = c.now.Add(d) }

func newTable(t *testing.T, ttl time.Duration) (Provider, *clock) {
	t.Helper()
	c := &clock{now: time.Unix(1e9, 0)}
	p, err := New(Options{Kind: "simple", TTL: ttl, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

// known fails the test unless the token is that of the user; an empty user: of nobody.
func known(t *testing.T, p Provider, token, username string) {
	t.Helper()
	info, ok := p.Info(token, 7)
	switch {
	case username == "" && ok:
		t.Errorf("token %q is known as that of %q", token, info.Username)
	case username != "" && (!ok || info != auth.Info{Username: username, Revision: 7}):
		t.Errorf("token %q: %v, %v; want that of %q", token, info, ok, username)
	}
}

func TestSimplePrefix(t *testing.T) {
	p, _ := newTable(t, 0)
	seen := make(map[string]bool)
	for range 100 {
		prefix := p.Prefix()
		if !regexp.MustCompile(`^[a-zA-Z]{16}$`).MatchString(prefix) || seen[prefix] {
			t.Fatalf("prefix %q", prefix)
		}
		seen[prefix] = true
	}
}

func TestSimpleIssue(t *testing.T) {
	p, _ := newTable(t, 0)
	if got, err := p.Issue("a", 1, "abc.5"); got != "abc.5" || err != nil {
		t.Errorf("issued %q, %v", got, err)
	}
}

func TestSimpleIndex(t *testing.T) {
	p, _ := newTable(t, 0)
	for token, want := range map[string]uint64{
		"abc.12": 12, "abc.18446744073709551615": 1<<64 - 1, "abc.18446744073709551616": 0, "": 0, "abc": 0, "abc.": 0, "abc.x": 0, "abc.1.2": 0, "abc.-1": 0,
	} {
		if got := p.Index(token); got != want {
			t.Errorf("index of %q is %d, not %d", token, got, want)
		}
	}
}

// TestSimpleExpiry: a token ends TTL after its last use, not before and no later.
func TestSimpleExpiry(t *testing.T) {
	p, c := newTable(t, time.Minute)
	p.Assign("alice", "a.1", 1)
	p.Assign("bob", "b.2", 2)
	for range 3 {
		c.pass(50 * time.Second)
		known(t, p, "a.1", "alice")
	}
	known(t, p, "b.2", "")
	c.pass(time.Minute)
	known(t, p, "a.1", "alice")
	c.pass(time.Minute + 1)
	known(t, p, "a.1", "")
	if n := len(p.(*simple).tokens); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
}

func TestSimpleDefaultTTL(t *testing.T) {
	p, c := newTable(t, 0)
	p.Assign("alice", "a.1", 1)
	c.pass(300 * time.Second)
	known(t, p, "a.1", "alice")
	c.pass(300*time.Second + 1)
	known(t, p, "a.1", "")
}

func TestSimpleInvalidate(t *testing.T) {
	p, c := newTable(t, time.Minute)
	for i := range 10 {
		p.Assign([]string{"alice", "bob"}[i%2], fmt.Sprintf("t.%d", i), uint64(i))
	}
	p.Invalidate("alice")
	p.Invalidate("nobody")
	for i := range 10 {
		known(t, p, fmt.Sprintf("t.%d", i), []string{"", "bob"}[i%2])
	}
	p.Assign("alice", "t.10", 10)
	known(t, p, "t.10", "alice")
	p.InvalidateAll()
	for i := range 11 {
		known(t, p, fmt.Sprintf("t.%d", i), "")
	}
	p.Assign("alice", "t.11", 11)
	known(t, p, "t.11", "alice")
	c.pass(time.Hour)
	known(t, p, "t.11", "")
}

// TestSimpleReassign: the same token again, as an entry that is applied again would have it, is one token.
func TestSimpleReassign(t *testing.T) {
	p, c := newTable(t, time.Minute)
	p.Assign("alice", "a.1", 1)
	c.pass(40 * time.Second)
	p.Assign("bob", "a.1", 1)
	c.pass(40 * time.Second)
	known(t, p, "a.1", "bob")
	if s := p.(*simple); len(s.tokens) != 1 || s.order.Len() != 1 {
		t.Errorf("%d and %d tokens", len(s.tokens), s.order.Len())
	}
}

// TestSimpleFull: a full table forgets the token that was not used for the longest time.
func TestSimpleFull(t *testing.T) {
	p, _ := newTable(t, time.Minute)
	for i := range simpleTokensMax {
		p.Assign("alice", fmt.Sprintf("t.%d", i), uint64(i))
	}
	known(t, p, "t.0", "alice")
	p.Assign("alice", "t.last", 1)
	known(t, p, "t.0", "alice")
	known(t, p, "t.1", "")
	known(t, p, "t.2", "alice")
	if n := len(p.(*simple).tokens); n != simpleTokensMax {
		t.Errorf("%d tokens", n)
	}
}
