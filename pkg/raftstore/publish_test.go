package raftstore

import (
	"testing"
	"testing/synctest"

	"go.etcd.io/etcd/client/pkg/v3/types"
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
