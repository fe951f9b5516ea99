package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubeshim/shim/internal/freeport"
)

// TestProcessForcesNewCluster: of three members two are lost; the third goes on alone with --force-new-cluster, with all
// that was acknowledged, and later without the flag; and it takes a new member.
func TestProcessForcesNewCluster(t *testing.T) {
	members := launchCluster(t, "http", 3)
	for _, p := range members {
		p.await()
	}
	members[1].mustPut("a", "1")
	for _, p := range members {
		if got := p.mustGet("a"); got != "1" {
			t.Errorf("a is %q", got)
		}
	}
	for _, p := range members {
		p.stop(syscall.SIGKILL)
	}
	alone := members[0].again("--force-new-cluster")
	alone.await()
	alone.wantMembers(1)
	if got := alone.mustGet("a"); got != "1" {
		t.Errorf("a is %q on the member that was left", got)
	}
	alone.mustPut("b", "2")
	alone.stop(syscall.SIGTERM)
	alone = members[0].again()
	alone.await()
	alone.wantMembers(1)

	joined := alone.join("m9")
	joined.await()
	alone.wantMembers(2)
	if a, b := joined.mustGet("a"), joined.mustGet("b"); a != "1" || b != "2" {
		t.Errorf("a is %q, and b is %q on the member that joined", a, b)
	}
	joined.mustPut("c", "3")
	joined.stop(syscall.SIGTERM)
	joined = joined.again() // its data dir knows the cluster now; the flags are those of the first start
	joined.await()
	if got := joined.mustGet("c"); got != "3" {
		t.Errorf("c is %q on the member that joined and started again", got)
	}
}

// TestProcessLostItsData: a member whose data dir is gone does not begin anew in the cluster that it was part of, as it would have forgotten
// what it has acknowledged.
func TestProcessLostItsData(t *testing.T) {
	members := launchCluster(t, "http", 3)
	for _, p := range members {
		p.await()
	}
	members[0].mustPut("a", "1")
	members[2].stop(syscall.SIGKILL)
	for _, arg := range members[2].cmd.Args {
		if dir, ok := strings.CutPrefix(arg, "--data-dir="); ok {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	again := members[2].again()
	if code := again.wait(); code == 0 || !strings.Contains(again.log(), "has already been bootstrapped") {
		t.Errorf("it ends with %d: %s", code, again.log())
	}
	members[0].mustPut("a", "2")
}

func (p *process) wantMembers(n int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), startTimeout)
	defer cancel()
	r, err := p.dial().MemberList(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(r.Members) != n {
		p.t.Errorf("%d members, not %d: %v", len(r.Members), n, r.Members)
	}
}

// join adds a member to the cluster of p and starts it.
func (p *process) join(name string) *process {
	p.t.Helper()
	next := &process{t: p.t, client: freeport.Addr(p.t), metrics: freeport.Addr(p.t), peer: freeport.Addr(p.t), ready: make(chan struct{}), ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(p.t.Context(), startTimeout)
	defer cancel()
	added, err := p.dial().MemberAdd(ctx, []string{"http://" + next.peer})
	if err != nil {
		p.t.Fatal(err)
	}
	var initial []string
	for _, m := range added.Members {
		if m.ID == added.Member.ID {
			m.Name = name
		}
		initial = append(initial, m.Name+"="+m.PeerURLs[0])
	}
	next.run("--name="+name, "--data-dir="+filepath.Join(p.t.TempDir(), "data"),
		"--listen-client-urls=http://"+next.client, "--advertise-client-urls=http://"+next.client,
		"--listen-peer-urls=http://"+next.peer, "--initial-advertise-peer-urls=http://"+next.peer, "--listen-metrics-urls=http://"+next.metrics,
		"--initial-cluster="+strings.Join(initial, ","), "--initial-cluster-state=existing")
	return next
}

// TestProcessChecksPeers: of three members over TLS one has a certificate that the others do not accept. The two are a cluster, and
// nothing comes from the third.
func TestProcessChecksPeers(t *testing.T) {
	for _, c := range []struct{ what, flag, stranger, reason string }{
		{"name", "--peer-cert-allowed-cn=peer", "stranger", "client certificate authentication failed"},
		{"host name", "--peer-cert-allowed-hostname=peer.example", "elsewhere", "client certificate authentication failed"},
		{"revoked", "--peer-crl-file=%s/ca.crl", "revoked", "certificate serial 03 revoked"},
		{"another CA", "", "unknown", "certificate signed by unknown authority"},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			caKey, ca := issue(t, dir, "ca", 1, nil, nil)
			issue(t, dir, "peer", 2, caKey, ca)
			switch c.stranger {
			case "unknown":
				otherDir := t.TempDir()
				otherKey, other := issue(t, otherDir, "ca", 1, nil, nil)
				issue(t, dir, c.stranger, 3, otherKey, other)
			default:
				issue(t, dir, c.stranger, 3, caKey, ca)
			}
			revoke(t, filepath.Join(dir, "ca.crl"), caKey, ca, 3)
			flag := c.flag
			if strings.Contains(flag, "%s") {
				flag = fmt.Sprintf(flag, dir)
			}
			certOf := func(i int) string {
				return filepath.Join(dir, map[bool]string{true: c.stranger, false: "peer"}[i == 2])
			}
			members := launchCluster(t, "https", 3, func(i int) []string {
				args := []string{"--peer-cert-file=" + certOf(i) + ".crt", "--peer-key-file=" + certOf(i) + ".key",
					"--peer-client-cert-auth", "--peer-trusted-ca-file=" + dir + "/ca.crt"}
				if flag != "" {
					args = append(args, flag)
				}
				return args
			})
			members[0].await()
			members[1].await()
			members[0].mustPut("a", "1")
			if got := members[1].mustGet("a"); got != "1" {
				t.Errorf("a is %q", got)
			}
			members[0].awaitLog(c.reason)
			members[2].awaitLog("remote error: tls: ")
			select {
			case <-members[2].ready:
				t.Error("the third is part of the cluster")
			case <-members[2].ended:
				t.Errorf("the third ended: %s", members[2].log())
			default:
			}
		})
	}
}

// awaitLog waits for a part of the log.
func (p *process) awaitLog(part string) {
	p.t.Helper()
	for end := time.Now().Add(startTimeout); !strings.Contains(p.log(), part); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("%q is not in the log: %s", part, p.log())
		}
	}
}

func revoke(t *testing.T, path string, key *ecdsa.PrivateKey, ca *x509.Certificate, serials ...int64) {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now().Add(-time.Hour)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca, key)
	if err == nil {
		err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
