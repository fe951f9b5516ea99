//go:build robustness

package robustness

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/kubeshim/shim/test/internal/peers"
)

const domain = "members.example"

// TestClusterDiscoveryDNS: members find each other by SRV records, once: what they know is in their directories afterwards. One that has no
// record ends, one that was added joins. With TLS and no CA of their own, they show and want certificates for the domain.
func TestClusterDiscoveryDNS(t *testing.T) {
	t.Parallel()
	for scheme, service := range map[string]string{"http": "_etcd-server._tcp.", "https": "_etcd-server-ssl._tcp."} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			c := prepareCluster(t, 3)
			c.scheme = scheme
			zone := serveZone(t, c.clients)
			offer := func(m *member) { zone.offer(service+domain+".", m.name+"."+domain+".", m.host.IP(), peerPort) }
			keys := certify(t, domain)
			configure := func(m *member) {
				m.host.UseDNS(t, c.clients)
				m.flags, m.env = []string{"--discovery-srv=" + domain}, nil
				if scheme == "https" {
					m.flags = append(m.flags, "--peer-cert-file="+keys+"/crt", "--peer-key-file="+keys+"/key")
					m.env = []string{"SSL_CERT_FILE=" + keys + "/crt"}
				}
			}
			for _, m := range c.members {
				offer(m)
				configure(m)
			}
			c.startAll()
			c.write(1)

			d := c.newMember("d")
			configure(d)
			d.endsWith(`cannot find local etcd member "d" in SRV records`)

			if scheme == "http" { // etcd forgets the domain that certificates are for, and so do we
				asked := zone.questions()
				c.killAll()
				c.startAll()
				if n := zone.questions() - asked; n > 0 {
					t.Errorf("members that were there before have asked for SRV records %d times", n)
				}
			}
			offer(d)
			c.added(d, scheme+"://d."+domain+":2380")
			d.flags = append(d.flags, "--initial-cluster-state=existing")
			d.start()
			c.members = append(c.members, d)
			c.write(2)
			for _, m := range c.list() {
				if want := scheme + "://" + m.Name + "." + domain + ":2380"; len(m.PeerURLs) != 1 || m.PeerURLs[0] != want {
					t.Errorf("the peer URLs of %s are %v, not %s", m.Name, m.PeerURLs, want)
				}
			}
		})
	}
}

// TestClusterDiscoveryService: members find each other by a discovery service, which is an etcd or one like them. It is not needed any more
// when they start again, and one that comes too late is told.
func TestClusterDiscoveryService(t *testing.T) {
	t.Parallel()
	for name, program := range map[string]string{"etcd": peers.Path(t, "etcd"), "itself": binary} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const registry = "/_etcd/registry/token-1/"
			c := prepareCluster(t, 3)
			host := c.net.Host(t, "registry")
			url := "http://" + host.Addr(clientPort)
			service := &process{t: t}
			t.Cleanup(func() { service.cleanup("the service") })
			service.run(host.Command(program, "--name=registry", "--data-dir="+filepath.Join(c.dir, "registry"), "--listen-client-urls="+url, "--advertise-client-urls="+url))
			service.awaitReady()
			kv := pb.NewKVClient(c.dial(host.Addr(clientPort)))
			put(t, kv, registry+"_config/size", "3")

			configure := func(m *member) { m.flags = []string{"--discovery-token=token-1", "--discovery-endpoints=" + url} }
			for i, m := range c.members {
				configure(m)
				if i == 2 {
					c.members[0].isNotReady()
					c.members[1].isNotReady()
				}
				m.launch()
				awaitSlowly(t, m.name+" to register", func() bool { return count(t, kv, registry+"members/") == i+1 })
			}
			c.awaitAll()
			c.write(1)

			d := c.newMember("d")
			configure(d)
			d.endsWith("discovery: cluster is full")

			service.kill()
			c.killAll()
			c.startAll()
			c.write(2)

			c.added(d, d.peerURL())
			d.flags = append(d.flags, "--initial-cluster-state=existing")
			d.endsWith("discovery URL should not be set when joining existing initial cluster")
		})
	}
}

func (c *cluster) startAll() {
	c.t.Helper()
	for _, m := range c.members {
		m.launch()
	}
	c.awaitAll()
}

func (c *cluster) awaitAll() {
	c.t.Helper()
	for _, m := range c.members {
		m.awaitReady()
		m.learnID()
	}
}

func (c *cluster) killAll() {
	c.t.Helper()
	for _, m := range c.members {
		m.kill()
	}
}

// write puts a key, which is in the list of as many members as there are; all of them agree on it.
func (c *cluster) write(round byte) {
	c.t.Helper()
	rev := put(c.t, pb.NewKVClient(c.members[0].conn), "k", string('0'+round))
	c.agree(rev)
	if all := c.list(); len(all) != len(c.members) {
		c.t.Errorf("the members are %v", all)
	}
}

func (c *cluster) list() (members []*pb.Member) {
	c.t.Helper()
	surely(c.t, "list the members", func(ctx context.Context) error {
		r, err := pb.NewClusterClient(c.members[0].conn).MemberList(ctx, &pb.MemberListRequest{Linearizable: true}, grpc.WaitForReady(true))
		members = r.GetMembers()
		return err
	})
	return members
}

// added makes a place in the cluster for a member.
func (c *cluster) added(m *member, url string) {
	c.t.Helper()
	c.reconfigure(m.name+" to be added",
		func(all []*pb.Member) bool {
			return slices.ContainsFunc(all, func(x *pb.Member) bool { return slices.Contains(x.PeerURLs, url) })
		},
		func(ctx context.Context, api pb.ClusterClient) error {
			_, err := api.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{url}})
			return err
		})
}

// endsWith starts a member that ends by itself and says why.
func (m *member) endsWith(why string) {
	m.t.Helper()
	m.launch()
	code := m.wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if all := strings.Join(m.lines, "\n"); code != 1 || !strings.Contains(strings.ReplaceAll(all, `\"`, `"`), why) {
		m.t.Errorf("%s ends with code %d and does not say %s", m.name, code, why)
	}
}

func (m *member) isNotReady() {
	m.t.Helper()
	select {
	case <-m.ready:
		m.t.Errorf("%s is ready before the others have come", m.name)
	default:
	}
}

func put(t *testing.T, kv pb.KVClient, key, value string) (rev int64) {
	t.Helper()
	surely(t, "put "+key, func(ctx context.Context) error {
		r, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)}, grpc.WaitForReady(true))
		rev = r.GetHeader().GetRevision()
		return err
	})
	return rev
}

func count(t *testing.T, kv pb.KVClient, prefix string) (n int) {
	t.Helper()
	surely(t, "count "+prefix, func(ctx context.Context) error {
		end := []byte(prefix)
		end[len(end)-1]++
		r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: end, CountOnly: true}, grpc.WaitForReady(true))
		n = int(r.GetCount())
		return err
	})
	return n
}

// certify makes a directory with key and crt, a certificate for a name that is its own authority.
func certify(t *testing.T, name string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true, IsCA: true}
	crt, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"crt": {Type: "CERTIFICATE", Bytes: crt}, "key": {Type: "EC PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
