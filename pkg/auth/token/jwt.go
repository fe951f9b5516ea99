package token

import (
	"crypto"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kubeshim/shim/pkg/auth"
)

// The options of jwt; others are ignored.
const (
	optionMethod     = "sign-method"
	optionPublicKey  = "pub-key"
	optionPrivateKey = "priv-key"
	optionTTL        = "ttl"
)

// The claims of a token, beside exp.
const (
	claimUsername = "username"
	claimRevision = "revision"
)

var errOtherMethod = errors.New("invalid signing method")

// signed is the provider of JSON web tokens.
type signed struct {
	method jwt.SigningMethod
	keys   keys
	ttl    time.Duration
	now    func() time.Time
	parser *jwt.Parser
}

// keys sign and verify; sign is nil if only the public key is known.
type keys struct{ sign, verify any }

func newJWT(settings map[string]string, now func() time.Time) (*signed, error) {
	s := &signed{ttl: TTLDefault, now: now}
	var err error
	if ttl := settings[optionTTL]; ttl != "" {
		if s.ttl, err = time.ParseDuration(ttl); err != nil {
			return nil, ErrInvalidOptions
		}
	}
	public, err1 := readKey(settings[optionPublicKey])
	private, err2 := readKey(settings[optionPrivateKey])
	s.method = jwt.GetSigningMethod(settings[optionMethod])
	if err1 != nil || err2 != nil || s.method == nil {
		return nil, ErrInvalidOptions
	}
	if s.keys, err = parseKeys(s.method, private, public); err != nil {
		return nil, err
	}
	s.parser = jwt.NewParser(jwt.WithTimeFunc(now))
	return s, nil
}

// readKey reads the file of a key, if there is one.
func readKey(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	return os.ReadFile(file)
}

// parseKeys reads what the method needs of the two.
func parseKeys(method jwt.SigningMethod, private, public []byte) (keys, error) {
	switch method.(type) {
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		return keyPair(private, public, jwt.ParseRSAPrivateKeyFromPEM, jwt.ParseRSAPublicKeyFromPEM)
	case *jwt.SigningMethodECDSA:
		return keyPair(private, public, jwt.ParseECPrivateKeyFromPEM, jwt.ParseECPublicKeyFromPEM)
	case *jwt.SigningMethodEd25519:
		return keyPair(private, public, jwt.ParseEdPrivateKeyFromPEM, jwt.ParseEdPublicKeyFromPEM)
	case *jwt.SigningMethodHMAC:
		if len(private) == 0 {
			return keys{}, ErrMissingKey
		}
		return keys{sign: private, verify: private}, nil
	}
	return keys{}, fmt.Errorf("unsupported signing method: %T", method)
}

// keyPair reads a private key, a public key, or both if they belong together.
func keyPair[Private, Public any](private, public []byte, readPrivate func([]byte) (Private, error), readPublic func([]byte) (Public, error)) (keys, error) {
	var k keys
	if len(private) > 0 {
		key, err := readPrivate(private)
		if err != nil {
			return keys{}, err
		}
		signer, ok := any(key).(crypto.Signer)
		if !ok {
			return keys{}, fmt.Errorf("key of type %T does not sign", key)
		}
		k = keys{sign: key, verify: signer.Public()}
	}
	if len(public) > 0 {
		key, err := readPublic(public)
		if err != nil {
			return keys{}, err
		}
		if k.verify != nil && !any(key).(interface{ Equal(crypto.PublicKey) bool }).Equal(k.verify) {
			return keys{}, ErrKeyMismatch
		}
		k.verify = key
	}
	if k.verify == nil {
		return keys{}, ErrMissingKey
	}
	return k, nil
}

// Prefix is empty: the token is made when the login has been applied.
func (*signed) Prefix() string { return "" }

// Issue signs a token.
func (s *signed) Issue(username string, revision uint64, _ string) (string, error) {
	if s.keys.sign == nil {
		return "", ErrVerifyOnly
	}
	return jwt.NewWithClaims(s.method, jwt.MapClaims{
		claimUsername: username,
		claimRevision: revision,
		"exp":         s.now().Add(s.ttl).Unix(),
	}).SignedString(s.keys.sign)
}

// Index implements Provider: everybody knows every token.
func (*signed) Index(string) uint64 { return 0 }

// Info verifies the token and reads what it says. The revision is the token's own.
func (s *signed) Info(token string, _ uint64) (auth.Info, bool) {
	parsed, err := s.parser.Parse(token, func(t *jwt.Token) (any, error) {
		if t.Method.Alg() != s.method.Alg() {
			return nil, errOtherMethod
		}
		return s.keys.verify, nil
	})
	if err != nil {
		return auth.Info{}, false
	}
	claims, _ := parsed.Claims.(jwt.MapClaims)
	username, ok1 := claims[claimUsername].(string)
	revision, ok2 := claims[claimRevision].(float64)
	if !parsed.Valid || !ok1 || !ok2 {
		return auth.Info{}, false
	}
	return auth.Info{Username: username, Revision: uint64(revision)}, true
}

// Assign implements Provider: nothing is kept, so nothing can be ended.
func (*signed) Assign(string, string, uint64) {}

// Invalidate implements Provider.
func (*signed) Invalidate(string) {}

// InvalidateAll implements Provider.
func (*signed) InvalidateAll() {}
