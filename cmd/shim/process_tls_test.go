package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kubeshim/shim/internal/freeport"
)

// pki makes the files that kubeadm makes for etcd: ca.crt, and a certificate and
// key each of server, peer and client.
func pki(t testing.TB, dir string) {
	t.Helper()
	caKey, caCert := issue(t, dir, "ca", 1, nil, nil)
	for i, name := range []string{"server", "peer", "client"} {
		issue(t, dir, name, int64(i+2), caKey, caCert)
	}
}

func issue(t testing.TB, dir, name string, serial int64, caKey *ecdsa.PrivateKey, ca *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{name + ".example"}, BasicConstraintsValid: true, IsCA: ca == nil,
	}
	if ca == nil {
		ca, caKey = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key, cert
}

// clientTLS trusts the pki's CA and shows the client's certificate if asked to.
func clientTLS(t testing.TB, dir string, show bool) *tls.Config {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AppendCertsFromPEM(ca)
	if show {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"))
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// TestProcessKubeadm runs the command line of the static pod that kubeadm 1.37
// writes, with other addresses and paths.
func TestProcessKubeadm(t *testing.T) {
	pkiDir, dir := t.TempDir(), filepath.Join(t.TempDir(), "data")
	pki(t, pkiDir)
	p := &process{t: t, client: freeport.Addr(t), metrics: freeport.Addr(t), peer: freeport.Addr(t), ready: make(chan struct{}), ended: make(chan struct{})}
	second := freeport.Addr(t)
	p.run(
		"--advertise-client-urls=https://"+p.client,
		"--cert-file="+pkiDir+"/server.crt",
		"--client-cert-auth=true",
		"--data-dir="+dir,
		"--feature-gates=InitialCorruptCheck=true",
		"--initial-advertise-peer-urls=https://"+p.peer,
		"--initial-cluster=node1=https://"+p.peer,
		"--key-file="+pkiDir+"/server.key",
		"--listen-client-urls=https://"+second+",https://"+p.client,
		"--listen-metrics-urls=http://"+p.metrics,
		"--listen-peer-urls=https://"+p.peer,
		"--name=node1",
		"--peer-cert-file="+pkiDir+"/peer.crt",
		"--peer-client-cert-auth=true",
		"--peer-key-file="+pkiDir+"/peer.key",
		"--peer-trusted-ca-file="+pkiDir+"/ca.crt",
		"--snapshot-count=10000",
		"--trusted-ca-file="+pkiDir+"/ca.crt",
		"--watch-progress-notify-interval=5s",
	)
	p.await()
	for line := range strings.Lines(grep(p.log(), `"level":"warn"`)) {
		if !strings.Contains(line, `"expected-duration"`) { // the disk was slow
			t.Errorf("warning: %s", line)
		}
	}
	for _, probe := range []string{"/livez", "/readyz"} {
		if got := p.get(p.metrics, probe); got != "ok\n" {
			t.Errorf("%s: %q", probe, got)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	for _, addr := range []string{p.client, second} {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + addr}, TLS: clientTLS(t, pkiDir, true), DialTimeout: startTimeout})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(ctx, "k", addr); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	}
	for _, addr := range []string{p.client, p.peer} {
		h := &http.Client{Transport: &http.Transport{TLSClientConfig: clientTLS(t, pkiDir, true), ForceAttemptHTTP2: true}}
		resp, err := h.Get("https://" + addr + "/version")
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %v %v", addr, resp, err)
		}
		stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: clientTLS(t, pkiDir, false)}}
		if resp, err := stranger.Get("https://" + addr + "/version"); err == nil { // a reset may overtake the reason
			resp.Body.Close()
			t.Errorf("%s lets in who shows no certificate: %s", addr, resp.Status)
		}
		h.CloseIdleConnections()
	}
	p.awaitLog("rejected connection on client endpoint")
	if code := p.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestProcessAutoTLSAndSockets: certificates of its own making, and unix sockets.
func TestProcessAutoTLSAndSockets(t *testing.T) {
	dir, sock := filepath.Join(t.TempDir(), "data"), t.TempDir()
	p := &process{t: t, client: freeport.Addr(t), peer: freeport.Addr(t), ready: make(chan struct{}), ended: make(chan struct{})}
	urls := "https://" + p.client + ",unix://" + sock + "/s,unixs://" + sock + "/t"
	p.run("--name=test", "--data-dir="+dir, "--auto-tls", "--peer-auto-tls", "--listen-peer-urls=https://"+p.peer,
		"--initial-advertise-peer-urls=https://"+p.peer, "--listen-client-urls="+urls, "--advertise-client-urls="+urls)
	p.await()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	trust := &tls.Config{InsecureSkipVerify: true} // it is self-signed
	for endpoint, config := range map[string]*tls.Config{"https://" + p.client: trust, "unix://" + sock + "/s": nil, "unixs://" + sock + "/t": trust} {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: config, DialTimeout: startTimeout})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(ctx, "k", endpoint); err != nil {
			t.Errorf("%s: %v", endpoint, err)
		}
		_ = c.Close()
	}
	if code := p.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
