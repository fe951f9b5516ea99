package etcdapi

import (
	"context"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// connect lets one member's server meet another's client.
func connect(t *testing.T, server, client *TLS, serverName string) (shown string, clientErr, serverErr error) {
	t.Helper()
	_, shown, clientErr, serverErr = handshake(t, server.ServerConfig(true, false, nil), client.ClientConfig(serverName))
	return shown, clientErr, serverErr
}

func TestTLSBetweenMembers(t *testing.T) {
	ca, other := newTestCA(t, "ca"), newTestCA(t, "other")
	cert, key, _ := ca.issue("server", "localhost")
	clientCert, clientKey, _ := ca.issue("client")
	badCert, badKey, serial := ca.issue("revoked")
	foreignCert, foreignKey, _ := other.issue("foreign")
	crl := filepath.Join(t.TempDir(), "crl")
	ca.revoke(crl, 1, serial)
	selfCert, selfKey, err := SelfCert(t.TempDir(), []string{"10.9.9.9:2380"}, 1, time.Now())
	if err != nil {
		t.Fatal(err)
	}

	good := TLSOptions{CertFile: cert, KeyFile: key, TrustedCAFile: ca.file(), ClientCertAuth: true, VerifyClientAddress: true}
	with := func(f func(*TLSOptions)) TLSOptions {
		o := good
		f(&o)
		return o
	}
	revoked := with(func(o *TLSOptions) { o.CertFile, o.KeyFile = badCert, badKey })
	foreign := TLSOptions{CertFile: foreignCert, KeyFile: foreignKey, TrustedCAFile: other.file(), ClientCertAuth: true}
	watchful := with(func(o *TLSOptions) { o.CRLFile = crl })
	auto := TLSOptions{CertFile: selfCert, KeyFile: selfKey, SelfSigned: true}

	for _, tc := range []struct {
		name            string
		server, client  TLSOptions
		serverName      string
		shown           string
		clientErr, sErr string
	}{
		{"same certificate both ways", good, good, "", "server", "", ""},
		{"a certificate of its own", good, with(func(o *TLSOptions) { o.ClientCertFile, o.ClientKeyFile = clientCert, clientKey }), "", "client", "", ""},
		{"for another name", good, good, "localhost", "server", "", ""},
		{"for a name that is not there", good, good, "example.com", "", "certificate is valid for localhost, not example.com", "bad certificate"},
		{"server of another CA", foreign, good, "", "", "certificate signed by unknown authority", "bad certificate"},
		{"client of another CA", good, with(func(o *TLSOptions) { o.ClientCertFile, o.ClientKeyFile = foreignCert, foreignKey }), "", "", "unknown certificate authority", "unknown authority"},
		{"client revoked", watchful, revoked, "", "", "bad certificate", "revoked"},
		{"server revoked", revoked, watchful, "", "", "revoked", "bad certificate"},
		{"client's name", with(func(o *TLSOptions) { o.AllowedCNs = []string{"client"} }), good, "", "", "bad certificate", "client certificate authentication failed"},
		{"server's name", good, with(func(o *TLSOptions) { o.AllowedCNs = []string{"client"} }), "", "", "client certificate authentication failed", "bad certificate"},
		{"self-signed", auto, auto, "", "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			shown, cerr, serr := connect(t, mustTLS(t, tc.server, nil), mustTLS(t, tc.client, nil), tc.serverName)
			says := func(err error, want string) bool {
				return (err == nil) == (want == "") && (err == nil || strings.Contains(err.Error(), want))
			}
			if !says(cerr, tc.clientErr) || !says(serr, tc.sErr) || shown != tc.shown {
				t.Errorf("shown %q, client: %v, server: %v", shown, cerr, serr)
			}
		})
	}
}

// TestTLSBetweenMembersReloads: neither side needs a restart for a new CA.
func TestTLSBetweenMembersReloads(t *testing.T) {
	ca, next := newTestCA(t, "ca"), newTestCA(t, "next")
	cert, key, _ := ca.issue("server")
	o := TLSOptions{CertFile: cert, KeyFile: key, TrustedCAFile: ca.file(), ClientCertAuth: true}
	client := mustTLS(t, o, nil)
	newCert, newKey, _ := next.issue("server")
	server := mustTLS(t, TLSOptions{CertFile: newCert, KeyFile: newKey, TrustedCAFile: next.file(), ClientCertAuth: true}, nil)
	if _, cerr, serr := connect(t, server, client, ""); cerr == nil || serr == nil {
		t.Fatalf("client: %v, server: %v", cerr, serr)
	}
	for to, from := range map[string]string{cert: newCert, key: newKey, ca.file(): next.file()} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		replace(t, to, content)
	}
	if _, cerr, serr := connect(t, server, client, ""); cerr != nil || serr != nil {
		t.Fatalf("client: %v, server: %v", cerr, serr)
	}
}

// TestVerifyAddress: whom a certificate is for, and where it comes from.
func TestVerifyAddress(t *testing.T) {
	at := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	ips := func(all ...string) (out []net.IP) {
		for _, s := range all {
			out = append(out, net.ParseIP(s))
		}
		return out
	}
	for _, tc := range []struct {
		cert  x509.Certificate
		from  string
		fails string
	}{
		{x509.Certificate{}, "10.0.0.1", ""},
		{x509.Certificate{IPAddresses: ips("10.0.0.1", "10.0.0.2")}, "10.0.0.2", ""},
		{x509.Certificate{IPAddresses: ips("10.0.0.1")}, "10.0.0.2", "certificate is valid for 10.0.0.1, not 10.0.0.2"},
		{x509.Certificate{IPAddresses: ips("10.0.0.1"), DNSNames: []string{"localhost"}}, "127.0.0.1", ""},
		{x509.Certificate{DNSNames: []string{"localhost"}}, "127.0.0.1", ""},
		{x509.Certificate{DNSNames: []string{"localhost"}}, "127.9.9.9", `tls: "127.9.9.9" does not match any of DNSNames ["localhost"]`},
	} {
		err := verifyAddress(context.Background(), &tc.cert, at(tc.from))
		if (err == nil) != (tc.fails == "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
			t.Errorf("%v %v from %s: %v", tc.cert.IPAddresses, tc.cert.DNSNames, tc.from, err)
		}
	}
}
