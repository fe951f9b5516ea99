package raftstore

import (
	"slices"
	"testing"
	"testing/synctest"

	"go.etcd.io/etcd/api/v3/membershippb"
	"go.etcd.io/etcd/client/pkg/v3/types"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// TestPublished: once all members are published, a linearizable read on each shows the client URLs of all.
func TestPublished(t *testing.T) { synctest.Test(t, testPublished) }

func testPublished(t *testing.T) {
	c := newCluster(t, 3, func(_ int, cfg *Config) { cfg.ClientURLs = []string{"http://" + cfg.Name + ":2379"} })
	for _, s := range c.stores {
		<-s.Published()
	}
	for i, s := range c.stores {
		if _, err := s.ReadView(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, o := range c.stores {
			m, ok := s.cluster.Load().Member(types.ID(o.id.member))
			if want := "http://" + o.cfg.Name + ":2379"; !ok || m.Name != o.cfg.Name || len(m.ClientURLs) != 1 || m.ClientURLs[0] != want {
				t.Errorf("on %d: %+v, want %s at %s", i, m, o.cfg.Name, want)
			}
		}
	}
	alone := newHarness(t).open()
	<-alone.Published()
	closeStore(t, alone)
}

// TestPublishedAnew: what a member has told the others right before it was stopped, and does not know itself, is not what it is started with now.
func TestPublishedAnew(t *testing.T) { synctest.Test(t, testPublishedAnew) }

func testPublishedAnew(t *testing.T) {
	c := newCluster(t, 3)
	for _, s := range c.stores {
		<-s.Published()
	}
	i := c.follower()
	id := c.stores[i].id.member
	c.stop(i)
	other := c.stores[c.leader()]
	if err := other.proposeOwn(t.Context(), Command{Kind: mvcc.KindMemberAttr, Request: &pb.InternalRaftRequest{
		ClusterMemberAttrSet: &membershippb.ClusterMemberAttrSetRequest{Member_ID: id,
			MemberAttributes: &membershippb.Attributes{Name: "former", ClientUrls: []string{"http://former:1"}}}}}); err != nil {
		t.Fatal(err)
	}
	s := c.start(i)
	<-s.Published()
	if _, err := other.ReadView(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m, _ := other.cluster.Load().Member(types.ID(id)); m.Name != s.cfg.Name || !slices.Equal(m.ClientURLs, s.cfg.ClientURLs) {
		t.Errorf("the others know %q, %q", m.Name, m.ClientURLs)
	}
}
