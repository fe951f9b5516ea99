package token

import (
	"errors"
	"strings"
	"time"

	"github.com/kubeshim/shim/pkg/auth"
)

// Errors of options and keys, with etcd's texts.
var (
	ErrInvalidOptions = errors.New("auth: invalid auth options")
	ErrInvalidMethod  = errors.New("auth: invalid auth signature method")
	ErrMissingKey     = errors.New("auth: missing key data")
	ErrKeyMismatch    = errors.New("auth: public and private keys don't match")
	// ErrInvalid is what a call with a token nobody knows is answered.
	ErrInvalid = errors.New("auth: invalid auth token")
	// ErrVerifyOnly is the error of a login where only the public key is known.
	ErrVerifyOnly = errors.New("auth: token signing attempted with verify-only key")
)

// Provider is one kind of token.
type Provider interface {
	// Prefix begins a token: the part that goes through the log. It is empty for those that need none.
	Prefix() string
	// Issue answers the token for a login that was applied at an auth revision. assigned is the one that was given to Assign there.
	// The error is auth.ErrAuthFailed, ErrVerifyOnly, or that of signing.
	Issue(username string, revision uint64, assigned string) (string, error)
	// Index is the index of the log that has to be applied before Info can know the token; 0: any.
	Index(token string) uint64
	// Info is whom a token is of. revision is the current auth revision: what it says of tokens that do not name their own.
	Info(token string, revision uint64) (auth.Info, bool)

	// Assign makes a token known: the whole of it, made of the prefix and the index of the entry.
	Assign(username, token string, index uint64)
	// Invalidate ends the tokens of a user.
	Invalidate(username string)
	// InvalidateAll ends all of them.
	InvalidateAll()
}

// Options say which tokens there are.
type Options struct {
	// Kind is etcd's --auth-token: "simple", "jwt,sign-method=...,..." or "".
	Kind string
	// TTL of simple tokens. Default TTLDefault.
	TTL time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// New makes the provider of the options. It reads the files of keys. The error is one of those above, or that of a key that cannot be
// parsed; as in etcd ErrInvalidOptions also stands for a method nobody knows and for files that cannot be read.
func New(o Options) (Provider, error) {
	if o.TTL <= 0 {
		o.TTL = TTLDefault
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	kind, settings, err := split(o.Kind)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "simple":
		return newSimple(o.TTL, o.Now), nil
	case "jwt":
		return newJWT(settings, o.Now)
	case "":
		return None, nil
	}
	return nil, ErrInvalidOptions
}

// split reads kind,name=value,...
func split(s string) (kind string, settings map[string]string, err error) {
	parts := strings.Split(s, ",")
	settings = make(map[string]string)
	for _, p := range parts[1:] {
		name, value, ok := strings.Cut(p, "=")
		if _, twice := settings[name]; !ok || twice || strings.Contains(value, "=") {
			return "", nil, ErrInvalidOptions
		}
		settings[name] = value
	}
	return parts[0], settings, nil
}

// None is the provider that has no tokens.
var None Provider = none{}

type none struct{}

func (none) Prefix() string                               { return "" }
func (none) Issue(string, uint64, string) (string, error) { return "", auth.ErrAuthFailed }
func (none) Index(string) uint64                          { return 0 }
func (none) Info(string, uint64) (auth.Info, bool)        { return auth.Info{}, false }
func (none) Assign(string, string, uint64)                {}
func (none) Invalidate(string)                            {}
func (none) InvalidateAll()                               {}
