package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/test/bufconn"

	"github.com/kubeshim/shim/internal/freeport"
)

// authority signs the certificates of a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, last: 1}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: t.Name()}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key = a.sign(tmpl)
	return a
}

// sign makes a key and a certificate for it; the authority's own one signs itself.
func (a *authority) sign(tmpl *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) issue(cn string) *tls.Certificate {
	a.last++
	cert, key := a.sign(&x509.Certificate{SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// server and client are configurations whose certificates are looked up per handshake.
func (a *authority) server(cert *atomic.Pointer[tls.Certificate]) *tls.Config {
	return &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool(),
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert.Load(), nil },
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cn := cs.PeerCertificates[0].Subject.CommonName; cn != "member" {
				return fmt.Errorf("client %s is not allowed", cn)
			}
			return nil
		}}
}

func (a *authority) client(cert *tls.Certificate) *tls.Config {
	c := &tls.Config{RootCAs: a.pool()}
	if cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return c
}

// TestTLS: members with certificates reach each other, others do not, a new certificate is used by the next connection, and HTTP works.
func TestTLS(t *testing.T) {
	checkLeaks(t)
	ca, other := newAuthority(t), newAuthority(t)
	var own atomic.Pointer[tls.Certificate]
	own.Store(ca.issue("member"))
	secure := func(client *tls.Config) func(*Options) {
		server := ca.server(&own)
		if client == nil { // this one chooses its configuration per handshake
			server = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return ca.server(&own), nil }}
		}
		return func(o *Options) { o.ServerTLS, o.ClientTLS = server, func() *tls.Config { return client } }
	}
	a, b := newMember(t, 1, secure(ca.client(ca.issue("member")))), newMember(t, 2, secure(ca.client(ca.issue("member"))))
	connect(a, b)
	a.reaches(2)
	b.reaches(1)
	a.send(heartbeat(1, 2, 1))
	await(t, "heartbeat", func() bool { return b.count(raftpb.MsgHeartbeat) == 1 })

	for what, client := range map[string]*tls.Config{
		"no certificate":                  ca.client(nil),
		"a certificate of somebody else":  ca.client(other.issue("member")),
		"a name that is not allowed":      ca.client(ca.issue("client")),
		"an authority of somebody else":   {RootCAs: other.pool(), GetClientCertificate: ca.client(ca.issue("member")).GetClientCertificate},
		"no configuration for TLS at all": nil,
	} {
		c := newMember(t, 3, secure(client))
		c.tr.SetPeers([]Peer{{2, []string{b.url}}})
		await(t, what, c.told("cannot connect to peer 2"))
		if !c.tr.ActiveSince(2).IsZero() {
			t.Errorf("%s: connected", what)
		}
		if client == nil {
			a.tr.SetPeers([]Peer{{2, []string{b.url}}, {3, []string{c.url}}})
			a.reaches(3)
		}
		c.tr.Close()
	}
	plain := newMember(t, 4)
	plain.tr.SetPeers([]Peer{{2, []string{"http" + b.url[len("https"):]}}})
	await(t, "plain text", plain.told("cannot connect to peer 2"))

	fetch := FetchOptions{TLS: ca.client(ca.issue("member"))}
	if got, err := FetchMembers(t.Context(), []string{b.url}, fetch); err != nil || string(got.JSON) != `[{"id":2}]` || got.Cluster != testCluster {
		t.Errorf("members %+v, %v", got, err)
	}
	if _, err := FetchMembers(t.Context(), []string{b.url}, FetchOptions{TLS: ca.client(nil)}); err == nil {
		t.Error("members without a certificate")
	}
	both := ca.client(ca.issue("member"))
	both.NextProtos = []string{"h2", "http/1.1"} // what curl offers
	if _, err := FetchMembers(t.Context(), []string{b.url}, FetchOptions{TLS: both}); err != nil {
		t.Error(err)
	}

	own.Store(other.issue("member")) // which nobody trusts
	a.net.cut()
	await(t, "the new certificate", a.told("cannot connect to peer 2"))
	own.Store(ca.issue("member"))
	a.reaches(2)
}

// TestOtherNetworks: a socket in the file system, and one in memory.
func TestOtherNetworks(t *testing.T) {
	checkLeaks(t)
	a := newMember(t, 1)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = a.tr.Serve(l) }()
	memory := bufconn.Listen(64 << 10)
	go func() { _ = a.tr.Serve(memory) }()
	b := newMember(t, 2)
	c := newMember(t, 3, func(o *Options) {
		o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return memory.DialContext(ctx) }
	})
	for m, url := range map[*member]string{b: "unix://" + path, c: "http://memory:1"} {
		m.tr.SetPeers([]Peer{{1, []string{url}}})
		m.send(appendOf(m.id, 1, 5, make([]byte, 1<<20)))
		m.send(heartbeat(m.id, 1, 5))
	}
	await(t, "messages", func() bool { return a.count(raftpb.MsgApp)+a.count(raftpb.MsgHeartbeat) == 4 })
	if got, err := FetchMembers(t.Context(), []string{"unix://" + path}, FetchOptions{}); err != nil || len(got.JSON) == 0 {
		t.Errorf("%+v %v", got, err)
	}
}

// TestHTTP: what operators, joining members and etcd members find on the peer port.
func TestHTTP(t *testing.T) {
	checkLeaks(t)
	rest := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, "rest of ", r.URL.Path) })
	a := newMember(t, 1, func(o *Options) { o.HTTP = rest })
	b := newMember(t, 2)
	for path, want := range map[string]string{"/members": `[{"id":1}]`, "/version": `{"etcdserver":"3.7.3"}`, "/health": "rest of /health"} {
		if resp, body := get(t, a.url+path); body != want || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %q", path, resp.Status, body)
		}
	}
	if resp, _ := get(t, a.url+"/members"); resp.Header.Get("X-Etcd-Cluster-ID") != "c1" {
		t.Error("no cluster ID")
	}
	if resp, _ := get(t, b.url+"/health"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("nobody's path: %s", resp.Status)
	}
	resp, err := http.Post(a.url+"/members", "", nil)
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v %v", resp, err)
	}
	resp.Body.Close()
	// What etcd asks, and the answers that it knows.
	for _, path := range []string{"/raft", "/raft/stream/message/1", "/raft/stream/msgapp/1", "/raft/probing", "/raft/snapshot"} {
		resp, body := get(t, a.url+path, "X-Etcd-Cluster-ID", "c1", "X-Server-From", "9", "X-Server-Version", "3.7.3")
		if resp.StatusCode != http.StatusPreconditionFailed || body != "incompatible version\n" || resp.Header.Get("X-Server-Version") == "" {
			t.Errorf("%s: %s %q", path, resp.Status, body)
		}
		if _, body := get(t, a.url+path, "X-Etcd-Cluster-ID", "c2"); body != "cluster ID mismatch\n" {
			t.Errorf("%s of another cluster: %q", path, body)
		}
	}
	if !a.told("refused member 9 of cluster c1: incompatible version")() {
		t.Error("no event")
	}
}

func TestFetch(t *testing.T) {
	checkLeaks(t)
	a := newMember(t, 1)
	dead := "http://" + freeport.Addr(t)
	got, err := FetchMembers(t.Context(), []string{dead, a.url}, FetchOptions{})
	if err != nil || got.URL != a.url || got.Cluster != testCluster || string(got.JSON) != `[{"id":1}]` {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := FetchMembers(t.Context(), []string{dead, "bad"}, FetchOptions{}); err == nil {
		t.Error("an answer from nobody")
	}
	if _, err := FetchMembers(t.Context(), nil, FetchOptions{}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("no URL: %v", err)
	}
	if _, err := FetchMembers(t.Context(), []string{a.url + "/health"}, FetchOptions{}); err != nil {
		t.Errorf("a path behind the URL: %v", err)
	}
}

// TestGarbage: connections that are none of a peer's end, and do no harm.
func TestGarbage(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	connect(a, b)
	a.reaches(2)
	for _, hello := range []string{"", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense that is no frame", "\x16\x03\x01", "GET", "shm", "shm1 and sixteen bytes", pipePreface + "no token of ours"} {
		c, err := net.Dial("tcp", b.url[len("http://"):])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(hello))
		_ = c.Close()
	}
	a.send(heartbeat(1, 2, 1))
	await(t, "heartbeat", func() bool { return b.count(raftpb.MsgHeartbeat) == 1 })
}
