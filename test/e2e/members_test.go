//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestControlPlaneOnMembers is a control plane of two apiservers on three
// members, of which one after the other is lost while a Deployment scales. The
// controllers work through both apiservers.
func TestControlPlaneOnMembers(t *testing.T) {
	c := newCluster(t, layout{members: 3, apiservers: 2})
	step := c.steps(t)
	step("nodes become ready", nodesBecomeReady)
	var pods []*follower
	for _, s := range c.apiservers {
		pods = append(pods, c.followAll(s, "/api/v1/namespaces/default/pods"))
	}
	watchesArrive := func(t *testing.T, c *cluster) {
		for _, f := range pods {
			watchArrives(t, c, f, "pods")
		}
	}
	step("a deployment runs", deploymentRuns)
	step("each apiserver sees each change once", watchesArrive)
	step("the leader is killed and replaced while a deployment scales", replaceWhileScaling)
	step("the watches went on", watchesArrive)
	step("two apiservers compact", twoCompact)
	step("caches are what the store holds", cachesAreTheStore)
	step("members agree", membersAgree)
	step("nobody complains", func(t *testing.T, c *cluster) { c.checkLogs() })
}

// replaceWhileScaling kills the leader while pods come and go, puts a new
// member in its place, and then has that one carry the quorum.
func replaceWhileScaling(t *testing.T, c *cluster) {
	const some = 10
	w, r, s := c.startWriter("acked"), c.startReader(), c.startScaler("web", replicas+100, replicas)
	w.await(t, some)

	dead := c.leader()
	dead.kill()
	w.await(t, some)
	c.replace(dead)
	w.await(t, some)

	next := c.other(dead)
	next.kill()
	w.await(t, some)
	c.launchMember(next, "existing")
	c.awaitMember(next)
	w.await(t, some)

	s.stop(t)
	w.stop()
	r.stop(t)
	w.check(t, c)
	// kwok gives up on a pod that was refused while there was no leader, where
	// a kubelet tries again. The new one waits for the nodes' leases to end.
	c.restart("kwok")
	if err := c.apiservers[1].scale(c.ctx, "web", replicas+100); err != nil {
		t.Fatal(err)
	}
	c.waitRollout("web")
	c.wantRunning("web", replicas+100)
}

// other is a member that is not m.
func (c *cluster) other(m *member) *member {
	for _, o := range c.members {
		if o != m {
			return o
		}
	}
	return nil
}

// twoCompact waits until the apiservers have compacted what was there when the
// step began, and reads from each member that it is gone.
func twoCompact(t *testing.T, c *cluster) {
	cli := c.client()
	resp, err := cli.Get(c.ctx, "compact_rev_key")
	if err != nil {
		t.Fatal(err)
	}
	begin := resp.Header.Revision
	var each []*clientv3.Client
	for _, m := range c.members {
		each = append(each, c.clientOf(m))
	}
	err = eventually(c.ctx, settleLimit, func(ctx context.Context) error {
		for i, m := range c.members {
			resp, err := each[i].Get(ctx, "compact_rev_key", clientv3.WithRev(begin), clientv3.WithSerializable())
			if err == nil {
				return fmt.Errorf("%s still has revision %d of %d", m.name, begin, resp.Header.Revision)
			}
			if !errors.Is(err, rpctypes.ErrCompacted) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// cachesAreTheStore compares what each apiserver answers from its watch cache
// with what the store holds at the same revision, as the apiserver does every
// few minutes.
func cachesAreTheStore(t *testing.T, c *cluster) {
	cli := c.client()
	for path, prefix := range map[string]string{
		"/api/v1/pods":                             "/registry/pods/",
		"/api/v1/nodes":                            "/registry/minions/",
		"/api/v1/configmaps":                       "/registry/configmaps/",
		"/apis/apps/v1/deployments":                "/registry/deployments/",
		"/apis/apps/v1/replicasets":                "/registry/replicasets/",
		"/apis/coordination.k8s.io/v1/leases":      "/registry/leases/",
		"/apis/rbac.authorization.k8s.io/v1/roles": "/registry/roles/",
	} {
		for _, s := range c.apiservers {
			l, err := s.list(c.ctx, "--raw", path+"?resourceVersion=0")
			if err != nil {
				t.Fatal(err)
			}
			cached := map[string]int64{}
			for _, o := range l.Items {
				cached[key(prefix, o.Metadata)] = version(o.Metadata)
			}
			resp, err := cli.Get(c.ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithRev(version(l.Metadata)))
			if err != nil {
				t.Fatal(err)
			}
			stored := map[string]int64{}
			for _, kv := range resp.Kvs {
				stored[string(kv.Key)] = kv.ModRevision
			}
			if len(stored) == 0 || !maps.Equal(cached, stored) {
				t.Errorf("%s at %s: %s has %v\nthe store %v", path, l.Metadata.ResourceVersion, s.name, cached, stored)
			}
		}
	}
}

// key is where the store keeps an object.
func key(prefix string, m objectMeta) string {
	if m.Namespace != "" {
		return prefix + m.Namespace + "/" + m.Name
	}
	return prefix + m.Name
}

// membersAgree compares the hashes of all members at one revision. Two that
// are not compacted alike at the moment are asked again.
func membersAgree(t *testing.T, c *cluster) {
	cli := c.client()
	err := eventually(c.ctx, settleLimit, func(ctx context.Context) error {
		at, err := cli.Get(ctx, "compact_rev_key")
		if err != nil {
			return err
		}
		var hashes []*clientv3.HashKVResponse
		for _, m := range c.members {
			h, err := cli.HashKV(ctx, m.clientURL(), at.Header.Revision)
			if err != nil {
				return err
			}
			if hashes = append(hashes, h); h.CompactRevision != hashes[0].CompactRevision {
				return fmt.Errorf("compacted at %d and %d", h.CompactRevision, hashes[0].CompactRevision)
			}
		}
		for i, h := range hashes {
			if h.Hash != hashes[0].Hash {
				t.Errorf("%s has hash %x at %d, %s has %x", c.members[i].name, h.Hash, at.Header.Revision, c.members[0].name, hashes[0].Hash)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
