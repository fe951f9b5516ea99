package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kubeshim/shim/pkg/auth"
)

// keyFiles writes a key pair and answers the names of the two files.
func keyFiles(t *testing.T, key crypto.Signer) (private, public string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	private = write("key", "PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(key.Public())
	return private, write("pub", "PUBLIC KEY", der, err)
}

func rsaKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func edKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func secretFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("not known to many"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func mustNew(t *testing.T, kind string, c *clock) Provider {
	t.Helper()
	p, err := New(Options{Kind: kind, Now: c.Now})
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return p
}

// TestJWT: what one member signs all others understand, with either key, until its time is over; a token of another key is none.
func TestJWT(t *testing.T) {
	keys := map[string]crypto.Signer{
		"RS256": rsaKey(t), "ES256": ecKey(t, elliptic.P256()), "ES384": ecKey(t, elliptic.P384()), "ES512": ecKey(t, elliptic.P521()), "EdDSA": edKey(t),
	}
	for _, m := range []string{"RS384", "RS512", "PS256", "PS384", "PS512"} {
		keys[m] = keys["RS256"]
	}
	for method, key := range keys {
		t.Run(method, func(t *testing.T) {
			private, public := keyFiles(t, key)
			c := &clock{now: time.Unix(1e9, 0)}
			both := mustNew(t, "jwt,ttl=1m,sign-method="+method+",pub-key="+public+",priv-key="+private, c)
			signer := mustNew(t, "jwt,sign-method="+method+",priv-key="+private, c)
			verifier := mustNew(t, "jwt,sign-method="+method+",pub-key="+public, c)
			if _, err := verifier.Issue("alice", 3, ""); !errors.Is(err, ErrVerifyOnly) {
				t.Errorf("signed with a public key: %v", err)
			}
			testJWT(t, c, both, both, signer, verifier)
		})
	}
}

func TestJWTHMAC(t *testing.T) {
	for _, method := range []string{"HS256", "HS384", "HS512"} {
		c, secret := &clock{now: time.Unix(1e9, 0)}, secretFile(t)
		testJWT(t, c, mustNew(t, "jwt,ttl=1m,sign-method="+method+",priv-key="+secret, c), mustNew(t, "jwt,sign-method="+method+",priv-key="+secret, c))
	}
}

// testJWT has one provider, with a TTL of a minute, issue a token that the others have to understand.
func testJWT(t *testing.T, c *clock, issuer Provider, readers ...Provider) {
	t.Helper()
	if issuer.Prefix() != "" || issuer.Index("x.5") != 0 {
		t.Error("these tokens do not go through the log")
	}
	token, err := issuer.Issue("alice", 3, "")
	if err != nil {
		t.Fatal(err)
	}
	check := func(want bool) {
		t.Helper()
		for i, p := range readers {
			info, ok := p.Info(token, 9)
			if ok != want || ok && info != (auth.Info{Username: "alice", Revision: 3}) {
				t.Errorf("reader %d: %v, %v; want %v", i, info, ok, want)
			}
			for _, wrong := range []string{"", "abc.1", token + "x", strings.Replace(token, ".", ".x", 1)} {
				if info, ok := p.Info(wrong, 9); ok {
					t.Errorf("reader %d takes %q for one of %v", i, wrong, info)
				}
			}
		}
	}
	issuer.Assign("alice", token, 1)
	issuer.InvalidateAll()
	issuer.Invalidate("alice")
	check(true)
	c.pass(59 * time.Second)
	check(true)
	c.pass(2 * time.Second)
	check(false)
}

// TestJWTForeign: tokens of other keys, other methods and other claims are none; the method none above all.
func TestJWTForeign(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	secret := secretFile(t)
	p := mustNew(t, "jwt,sign-method=HS256,priv-key="+secret, c)
	key, err := os.ReadFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	exp := c.now.Add(time.Minute).Unix()
	good := jwt.MapClaims{"username": "alice", "revision": 3, "exp": exp}
	sign := func(m jwt.SigningMethod, claims jwt.MapClaims, key any) string {
		s, err := jwt.NewWithClaims(m, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if _, ok := p.Info(sign(jwt.SigningMethodHS256, good, key), 1); !ok {
		t.Error("the good one is refused")
	}
	for name, token := range map[string]string{
		"other key":     sign(jwt.SigningMethodHS256, good, []byte("another")),
		"other method":  sign(jwt.SigningMethodHS512, good, key),
		"none":          sign(jwt.SigningMethodNone, good, jwt.UnsafeAllowNoneSignatureType),
		"no user":       sign(jwt.SigningMethodHS256, jwt.MapClaims{"revision": 3, "exp": exp}, key),
		"number":        sign(jwt.SigningMethodHS256, jwt.MapClaims{"username": 5, "revision": 3, "exp": exp}, key),
		"no revision":   sign(jwt.SigningMethodHS256, jwt.MapClaims{"username": "alice", "exp": exp}, key),
		"text revision": sign(jwt.SigningMethodHS256, jwt.MapClaims{"username": "alice", "revision": "3", "exp": exp}, key),
	} {
		if info, ok := p.Info(token, 1); ok {
			t.Errorf("%s: taken for one of %v", name, info)
		}
	}
}

// TestJWTPublicKeyIsNoSecret: the public key of an RSA pair does not sign as a secret.
func TestJWTPublicKeyIsNoSecret(t *testing.T) {
	_, public := keyFiles(t, rsaKey(t))
	c := &clock{now: time.Unix(1e9, 0)}
	p := mustNew(t, "jwt,sign-method=RS256,pub-key="+public, c)
	key, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"username": "root", "revision": 3, "exp": c.now.Unix() + 60}).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := p.Info(forged, 1); ok {
		t.Error("a token signed with the public key as a secret is taken")
	}
}

// TestOptions: the errors of etcd 3.7.3 for the values of --auth-token.
func TestOptions(t *testing.T) {
	private, _ := keyFiles(t, rsaKey(t))
	_, other := keyFiles(t, rsaKey(t))
	ecPrivate, _ := keyFiles(t, ecKey(t, elliptic.P256()))
	secret, none := secretFile(t), filepath.Join(t.TempDir(), "none")
	for kind, want := range map[string]string{
		"":                      "",
		"simple":                "",
		"simple,any=thing":      "",
		"simple,any":            ErrInvalidOptions.Error(),
		"simple,a=b,a=c":        ErrInvalidOptions.Error(),
		"simple,a=b=c":          ErrInvalidOptions.Error(),
		"other":                 ErrInvalidOptions.Error(),
		"JWT":                   ErrInvalidOptions.Error(),
		"jwt":                   ErrInvalidOptions.Error(),
		"jwt,sign-method=XX1":   ErrInvalidOptions.Error(),
		"jwt,sign-method=HS256": ErrMissingKey.Error(),
		"jwt,sign-method=RS256": ErrMissingKey.Error(),
		"jwt,sign-method=ES256": ErrMissingKey.Error(),
		"jwt,sign-method=EdDSA": ErrMissingKey.Error(),
		"jwt,sign-method=none":  "unsupported signing method: *jwt.signingMethodNone",
		"jwt,sign-method=HS256,pub-key=" + secret:                         ErrMissingKey.Error(),
		"jwt,sign-method=HS256,priv-key=" + none:                          ErrInvalidOptions.Error(),
		"jwt,sign-method=HS256,priv-key=" + secret + ",ttl=5":             ErrInvalidOptions.Error(),
		"jwt,sign-method=HS256,priv-key=" + secret + ",ttl=5m,color=red":  "",
		"jwt,sign-method=RS256,priv-key=" + private + ",pub-key=" + other: ErrKeyMismatch.Error(),
		"jwt,sign-method=RS256,priv-key=" + ecPrivate:                     jwt.ErrNotRSAPrivateKey.Error(),
		"jwt,sign-method=ES256,priv-key=" + private:                       jwt.ErrNotECPrivateKey.Error(),
		"jwt,sign-method=EdDSA,priv-key=" + private:                       jwt.ErrNotEdPrivateKey.Error(),
		"jwt,sign-method=RS256,priv-key=" + secret:                        jwt.ErrKeyMustBePEMEncoded.Error(),
		"jwt,sign-method=RS256,pub-key=" + secret:                         jwt.ErrKeyMustBePEMEncoded.Error(),
	} {
		have := ""
		if _, err := New(Options{Kind: kind}); err != nil {
			have = err.Error()
		}
		if have != want {
			t.Errorf("%q: %q, want %q", kind, have, want)
		}
	}
}

// TestNone: without tokens nobody logs in.
func TestNone(t *testing.T) {
	p, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.Assign("alice", "a.1", 1)
	if _, err := p.Issue("alice", 1, "a.1"); !errors.Is(err, auth.ErrAuthFailed) {
		t.Errorf("issued: %v", err)
	}
	if _, ok := p.Info("a.1", 1); ok || p.Index("a.1") != 0 || p.Prefix() != "" {
		t.Error("a token is known")
	}
}
