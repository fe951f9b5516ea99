package script

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// authority issues the certificates of one session.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// newAuthority makes one, whose own certificate and that of the servers are in files.
func newAuthority(dir string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &authority{dir: dir}
	pair, err := a.issue("authority", true)
	if err != nil {
		return nil, err
	}
	a.cert, a.key = pair.Leaf, pair.PrivateKey.(crypto.Signer)
	if err := a.write("ca", pair); err != nil {
		return nil, err
	}
	server, err := a.issue("server", false)
	if err != nil {
		return nil, err
	}
	return a, a.write("server", server)
}

// flags are those of a server that asks its clients for certificates.
func (a *authority) flags() []string {
	return []string{
		"--cert-file=" + filepath.Join(a.dir, "server.crt"), "--key-file=" + filepath.Join(a.dir, "server.key"),
		"--trusted-ca-file=" + filepath.Join(a.dir, "ca.crt"),
	}
}

// issue makes a certificate that names a user; the first one signs itself.
func (a *authority) issue(name string, isCA bool) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return tls.Certificate{}, err
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

func (a *authority) write(name string, pair tls.Certificate) error {
	if err := writePEM(filepath.Join(a.dir, name+".crt"), "CERTIFICATE", pair.Certificate[0]); err != nil {
		return err
	}
	return writeKey(filepath.Join(a.dir, name+".key"), pair.PrivateKey)
}

// client is the configuration of a client with the certificate of a user.
func (a *authority) client(user string) (*tls.Config, error) {
	pair, err := a.issue(user, false)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func writeKey(file string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(file, "PRIVATE KEY", der)
}

var keyMacro = regexp.MustCompile(`\$(rsa|ec|ed|secret)(\.pub)?`)

// withKeys replaces the names of keys in flags by files that hold such keys.
func (s *Session) withKeys(flags []string) ([]string, error) {
	var bad error
	for i, f := range flags {
		flags[i] = keyMacro.ReplaceAllStringFunc(f, func(m string) string {
			file := filepath.Join(s.cfg.TempDir, keyMacro.FindStringSubmatch(m)[1])
			if _, err := os.Stat(file); err != nil {
				if err := makeKey(file); err != nil {
					bad = err
				}
			}
			return file + keyMacro.FindStringSubmatch(m)[2]
		})
	}
	return flags, bad
}

// makeKey writes a key of the kind that the file's name says, and its public half.
func makeKey(file string) error {
	var key crypto.Signer
	var err error
	switch filepath.Base(file) {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ec":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ed":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		return os.WriteFile(file, []byte("a secret"), 0o600)
	}
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := writePEM(file+".pub", "PUBLIC KEY", der); err != nil {
		return err
	}
	return writeKey(file, key)
}
