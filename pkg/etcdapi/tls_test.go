package etcdapi

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// handshake lets a client with config c talk to a server with t's, and answers
// what became of it on both sides, and the name that the client showed.
func handshake(t *testing.T, server *tls.Config, c *tls.Config) (state tls.ConnectionState, shown string, clientErr, serverErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		raw, err := ln.Accept()
		if err != nil {
			done <- err
			return
		}
		defer raw.Close()
		conn := tls.Server(raw, server)
		err = conn.Handshake()
		if err == nil {
			if seen := conn.ConnectionState().PeerCertificates; len(seen) > 0 {
				shown = seen[0].Subject.CommonName
			}
			_, err = conn.Write([]byte("hello"))
		}
		done <- err
	}()
	conn, err := tls.Dial("tcp", ln.Addr().String(), c)
	if err != nil {
		serverErr = <-done
		return tls.ConnectionState{}, shown, err, serverErr
	}
	defer conn.Close()
	// In TLS 1.3 a client learns only by reading that it was refused.
	_, err = io.ReadFull(conn, make([]byte, len("hello")))
	serverErr = <-done
	return conn.ConnectionState(), shown, err, serverErr
}

func mustTLS(t *testing.T, o TLSOptions, onReload func(error)) *TLS {
	t.Helper()
	s, err := NewTLS(o, onReload)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTLSClientCertificates(t *testing.T) {
	ca, other := newTestCA(t, "ca"), newTestCA(t, "other")
	cert, key, _ := ca.issue("server")
	good, goodKey, _ := ca.issue("good", "apiserver.example")
	revoked, revokedKey, serial := ca.issue("revoked")
	foreign, foreignKey, _ := other.issue("foreign")
	crl := filepath.Join(t.TempDir(), "crl")
	ca.revoke(crl, 1, serial)

	open := TLSOptions{CertFile: cert, KeyFile: key}
	mutual := TLSOptions{CertFile: cert, KeyFile: key, TrustedCAFile: ca.file(), ClientCertAuth: true}
	caOnly := TLSOptions{CertFile: cert, KeyFile: key, TrustedCAFile: ca.file()}
	withCRL, byName, byCN := mutual, mutual, mutual
	withCRL.CRLFile = crl
	byName.AllowedHostnames = []string{"apiserver.example"}
	byCN.AllowedCNs = []string{"other-name", "good"}

	for _, tc := range []struct {
		name      string
		o         TLSOptions
		cert, key string
		refused   string // in the server's error; "" for let in
	}{
		{"no client certificate asked for", open, "", "", ""},
		{"mutual", mutual, good, goodKey, ""},
		{"mutual, none shown", mutual, "", "", "client didn't provide a certificate"},
		{"trusted CA alone asks for one", caOnly, "", "", "client didn't provide a certificate"},
		{"of another CA", mutual, foreign, foreignKey, "certificate signed by unknown authority"},
		{"not revoked", withCRL, good, goodKey, ""},
		{"revoked", withCRL, revoked, revokedKey, "revoked"},
		{"host name allowed", byName, good, goodKey, ""},
		{"host name not allowed", byName, revoked, revokedKey, "client certificate authentication failed"},
		{"common name allowed", byCN, good, goodKey, ""},
		{"common name not allowed", byCN, revoked, revokedKey, "client certificate authentication failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, cerr, serr := handshake(t, mustTLS(t, tc.o, nil).ServerConfig(true, true, nil), ca.client(tc.cert, tc.key))
			if tc.refused == "" {
				if cerr != nil || serr != nil {
					t.Fatalf("client: %v, server: %v", cerr, serr)
				}
				return
			}
			if cerr == nil || serr == nil || !strings.Contains(serr.Error(), tc.refused) {
				t.Fatalf("client: %v, server: %v, want %q", cerr, serr, tc.refused)
			}
		})
	}
}

func TestTLSVersionsAndSuites(t *testing.T) {
	ca := newTestCA(t, "ca")
	cert, key, _ := ca.issue("server")
	const suite = tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
	for _, tc := range []struct {
		name        string
		o           TLSOptions
		client      uint16 // the client's highest version
		refused     bool
		wantVersion uint16
		wantSuite   uint16
	}{
		{"default", TLSOptions{}, tls.VersionTLS13, false, tls.VersionTLS13, 0},
		{"default is no lower than 1.2", TLSOptions{}, tls.VersionTLS11, true, 0, 0},
		{"at least 1.3", TLSOptions{MinVersion: tls.VersionTLS13}, tls.VersionTLS12, true, 0, 0},
		{"at most 1.2", TLSOptions{MaxVersion: tls.VersionTLS12}, tls.VersionTLS13, false, tls.VersionTLS12, 0},
		{"one suite", TLSOptions{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}}, tls.VersionTLS13, false, tls.VersionTLS12, suite},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := tc.o
			o.CertFile, o.KeyFile = cert, key
			c := ca.client("", "")
			c.MaxVersion, c.MinVersion = tc.client, tls.VersionTLS10
			state, _, cerr, serr := handshake(t, mustTLS(t, o, nil).ServerConfig(true, true, nil), c)
			if tc.refused != (cerr != nil && serr != nil) {
				t.Fatalf("client: %v, server: %v", cerr, serr)
			}
			if !tc.refused && (state.Version != tc.wantVersion || tc.wantSuite != 0 && state.CipherSuite != tc.wantSuite) {
				t.Fatalf("version %x suite %x", state.Version, state.CipherSuite)
			}
		})
	}
}

// TestTLSProtocolByALPN is the rule by which gRPC and HTTP share a port.
func TestTLSProtocolByALPN(t *testing.T) {
	ca := newTestCA(t, "ca")
	cert, key, _ := ca.issue("server")
	s := mustTLS(t, TLSOptions{CertFile: cert, KeyFile: key}, nil)
	for _, tc := range []struct {
		grpc, http bool
		offered    []string
		want       string
	}{
		{true, true, []string{"h2"}, "h2"},
		{true, true, []string{"h2", "http/1.1"}, "h2"},
		{true, true, []string{"http/1.1"}, "http/1.1"},
		{true, true, nil, ""},
		{true, false, []string{"h2", "http/1.1"}, "h2"},
		{true, false, []string{"h2"}, "h2"},
		{true, false, nil, ""},
		{false, true, []string{"h2", "http/1.1"}, "http/1.1"},
		{false, true, nil, ""},
	} {
		c := ca.client("", "")
		c.NextProtos = tc.offered
		state, _, cerr, serr := handshake(t, s.ServerConfig(tc.grpc, tc.http, nil), c)
		if cerr != nil || serr != nil || state.NegotiatedProtocol != tc.want {
			t.Errorf("grpc %v http %v offered %v: %q (%v, %v), want %q", tc.grpc, tc.http, tc.offered, state.NegotiatedProtocol, cerr, serr, tc.want)
		}
	}
}

func TestTLSFollowsItsFiles(t *testing.T) {
	ca := newTestCA(t, "ca")
	cert, key, first := ca.issue("server")
	client, clientKey, clientSerial := ca.issue("client")
	crl := filepath.Join(t.TempDir(), "crl")
	ca.revoke(crl, 1)
	var reloads []error
	s := mustTLS(t, TLSOptions{CertFile: cert, KeyFile: key, TrustedCAFile: ca.file(), CRLFile: crl, ClientCertAuth: true},
		func(err error) { reloads = append(reloads, err) })
	config := s.ServerConfig(true, true, nil) // one listener's, over all that follows

	served := func() (*big.Int, error) {
		state, _, cerr, serr := handshake(t, config, ca.client(client, clientKey))
		if err := errors.Join(cerr, serr); err != nil {
			return nil, err
		}
		return state.PeerCertificates[0].SerialNumber, nil
	}
	if got, err := served(); err != nil || got.Cmp(first) != 0 {
		t.Fatalf("at first: %v, %v", got, err)
	}

	// A certificate whose key is still the old one must not be used, and told once.
	oldKey, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	_, _, second := ca.issue("server")
	newKey, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, key, oldKey)
	for range 2 {
		if got, err := served(); err != nil || got.Cmp(first) != 0 {
			t.Fatalf("half replaced: %v, %v", got, err)
		}
	}
	if len(reloads) != 1 || reloads[0] == nil {
		t.Fatalf("half replaced: told %v", reloads)
	}

	replace(t, key, newKey)
	if got, err := served(); err != nil || got.Cmp(second) != 0 {
		t.Fatalf("replaced: %v, %v, want serial %v", got, err, second)
	}
	if len(reloads) != 2 || reloads[1] != nil {
		t.Fatalf("replaced: told %v", reloads)
	}

	ca.revoke(crl, 2, clientSerial)
	if _, err := served(); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Fatalf("revoked meanwhile: %v", err)
	}
}

func TestTLSOptionsThatCannotWork(t *testing.T) {
	ca := newTestCA(t, "ca")
	cert, key, _ := ca.issue("server")
	_, otherKey, _ := ca.issue("other")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		o    TLSOptions
		want string
	}{
		{TLSOptions{CertFile: cert}, "KeyFile and CertFile must both be present"},
		{TLSOptions{CertFile: cert, KeyFile: key, ClientCertFile: cert}, "ClientKeyFile and ClientCertFile must both be present or both absent"},
		{TLSOptions{CertFile: cert, KeyFile: key, AllowedCNs: []string{"a"}, AllowedHostnames: []string{"b"}}, "mutually exclusive"},
		{TLSOptions{CertFile: cert, KeyFile: key, MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS12}, "is greater than max version"},
		{TLSOptions{CertFile: cert, KeyFile: otherKey}, "private key does not match public key"},
		{TLSOptions{CertFile: cert, KeyFile: key, ClientCertFile: cert, ClientKeyFile: otherKey}, "private key does not match public key"},
		{TLSOptions{CertFile: cert, KeyFile: key, TrustedCAFile: empty}, "no certificate in it"},
		{TLSOptions{CertFile: cert, KeyFile: key, CRLFile: empty}, "load revocation list"},
		{TLSOptions{CertFile: cert, KeyFile: "/nonexistent"}, "no such file"},
	} {
		if _, err := NewTLS(tc.o, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", tc.o, err, tc.want)
		}
	}
}

func TestSelfCert(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	if _, _, err := SelfCert(dir, nil, 0, now); err == nil {
		t.Error("0 years are not refused")
	}
	cert, key, err := SelfCert(filepath.Join(dir, "fixtures"), []string{"127.0.0.1:2379", "localhost:2379"}, 2, now)
	if err != nil {
		t.Fatal(err)
	}
	leaf := func() *x509.Certificate {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf
	}
	made := leaf()
	if err := errors.Join(made.VerifyHostname("127.0.0.1"), made.VerifyHostname("localhost")); err != nil {
		t.Error(err)
	}
	if got := made.NotAfter.Sub(made.NotBefore); got != 2*365*24*time.Hour {
		t.Errorf("valid for %v", got)
	}
	if _, _, err := SelfCert(filepath.Join(dir, "fixtures"), []string{"127.0.0.1:2379"}, 2, now.AddDate(1, 0, 0)); err != nil || leaf().SerialNumber.Cmp(made.SerialNumber) != 0 {
		t.Errorf("not kept (%v)", err)
	}
	if _, _, err := SelfCert(filepath.Join(dir, "fixtures"), []string{"127.0.0.1:2379"}, 2, now.AddDate(3, 0, 0)); err != nil || leaf().SerialNumber.Cmp(made.SerialNumber) == 0 {
		t.Errorf("not made anew when out of date (%v)", err)
	}
}
