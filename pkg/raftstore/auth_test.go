package raftstore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/auth"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// as proposes a command of somebody, at the auth revision of now.
func as(s *Store, user string, kind mvcc.Kind, r *pb.InternalRaftRequest) (mvcc.Result, error) {
	cmd := Command{Kind: kind, Request: r}
	if user != "" {
		cmd.Auth = auth.Info{Username: user, Revision: s.View().Auth().Revision()}
	}
	return s.Propose(context.Background(), cmd)
}

func putAs(s *Store, user, key string) error {
	_, err := as(s, user, mvcc.KindPut, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte(key), Value: []byte(user)}})
	return err
}

// guard makes root and alice, who may write what begins with a, and enables auth.
func guard(t testing.TB, s *Store) {
	t.Helper()
	hash := base64.StdEncoding.EncodeToString([]byte("$2a$04$hash"))
	for _, c := range []struct {
		kind mvcc.Kind
		r    *pb.InternalRaftRequest
	}{
		{mvcc.KindUserAdd, &pb.InternalRaftRequest{AuthUserAdd: &pb.AuthUserAddRequest{Name: "root", HashedPassword: hash}}},
		{mvcc.KindUserAdd, &pb.InternalRaftRequest{AuthUserAdd: &pb.AuthUserAddRequest{Name: "alice", HashedPassword: hash}}},
		{mvcc.KindRoleAdd, &pb.InternalRaftRequest{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: "root"}}},
		{mvcc.KindRoleAdd, &pb.InternalRaftRequest{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: "r"}}},
		{mvcc.KindRoleGrantPermission, &pb.InternalRaftRequest{AuthRoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: "r",
			Perm: &authpb.Permission{PermType: authpb.Permission_READWRITE, Key: []byte("a"), RangeEnd: []byte("b")}}}},
		{mvcc.KindUserGrantRole, &pb.InternalRaftRequest{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}}},
		{mvcc.KindUserGrantRole, &pb.InternalRaftRequest{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "alice", Role: "r"}}},
		{mvcc.KindAuthEnable, &pb.InternalRaftRequest{AuthEnable: &pb.AuthEnableRequest{}}},
	} {
		if _, err := as(s, "", c.kind, c.r); err != nil {
			t.Fatalf("%v: %v", c.kind, err)
		}
	}
}

func authText(s *Store) string {
	a := s.View().Auth()
	return fmt.Sprintf("enabled %v, revision %d, sum %x, hash %x", a.Enabled(), a.Revision(), a.Sum(), s.View().Hash())
}

func checkGuarded(t *testing.T, s *Store) {
	t.Helper()
	for _, c := range []struct {
		user, key string
		want      error
	}{{"", "a", auth.ErrUserEmpty}, {"bob", "a", auth.ErrPermissionDenied}, {"alice", "b", auth.ErrPermissionDenied}, {"alice", "a", nil}, {"root", "b", nil}} {
		if err := putAs(s, c.user, c.key); !errors.Is(err, c.want) {
			t.Errorf("%q puts %s: %v, want %v", c.user, c.key, err, c.want)
		}
	}
}

// tokenLog is a table of tokens that writes down what it is told.
type tokenLog struct {
	mu   sync.Mutex
	said []string
}

func (l *tokenLog) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, fmt.Sprintf(format, args...))
}

func (l *tokenLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	said := l.said
	l.said = nil
	return said
}

func (l *tokenLog) Assign(user, token string, index uint64) {
	l.say("%s has %s", user, token)
	l.index(token, index)
}
func (l *tokenLog) Invalidate(user string) { l.say("%s has none", user) }
func (l *tokenLog) InvalidateAll()         { l.say("nobody has any") }

func (l *tokenLog) index(token string, index uint64) {
	if !strings.HasSuffix(token, fmt.Sprintf(".%d", index)) {
		l.say("the token is of another index than %d", index)
	}
}

func authenticate(t *testing.T, s *Store, user, prefix string) string {
	t.Helper()
	res, err := as(s, "", mvcc.KindAuthenticate, &pb.InternalRaftRequest{Authenticate: &pb.InternalAuthenticateRequest{Name: user, SimpleToken: prefix}})
	if err != nil {
		t.Fatalf("authenticate %s: %v", user, err)
	}
	return res.Response.(*mvcc.AuthenticateResult).Token
}

// TestAuthSurvives: users, roles and whether they count are there after a crash, from the log, and after a stop, from the checkpoint; tokens are
// told of in the order of the log, and do not come back.
func TestAuthSurvives(t *testing.T) {
	h, tokens := newHarness(t), &tokenLog{}
	h.adjust = func(c *Config) { c.Tokens = tokens }
	s := h.open()
	checkNothingAsked(t, s)
	guard(t, s)
	checkGuarded(t, s)
	token := authenticate(t, s, "alice", "t")
	authenticate(t, s, "alice", "") // a JWT, which is no business of the table
	if _, err := as(s, "root", mvcc.KindUserChangePassword, &pb.InternalRaftRequest{AuthUserChangePassword: &pb.AuthUserChangePasswordRequest{Name: "alice"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := as(s, "alice", mvcc.KindUserDelete, &pb.InternalRaftRequest{AuthUserDelete: &pb.AuthUserDeleteRequest{Name: "root"}}); !errors.Is(err, auth.ErrPermissionDenied) {
		t.Errorf("alice deletes root: %v", err)
	}
	if got, want := tokens.take(), []string{"alice has " + token, "alice has none"}; !slices.Equal(got, want) {
		t.Errorf("the table was told %q, want %q", got, want)
	}
	want := authText(s)
	crashed := image(t, h, s, vfs.LoseAll)
	crashed.adjust = h.adjust
	replayed := crashed.open()
	if got := authText(replayed); !strings.HasPrefix(got, want[:strings.Index(want, ", hash")]) {
		t.Errorf("after a crash: %s, want %s", got, want)
	}
	checkGuarded(t, replayed)
	closeStore(t, replayed)
	if said := tokens.take(); said != nil {
		t.Errorf("the replay told the table %q", said)
	}

	closeStore(t, s)
	s = h.open()
	checkGuarded(t, s)
	if _, err := as(s, "root", mvcc.KindAuthDisable, &pb.InternalRaftRequest{AuthDisable: &pb.AuthDisableRequest{}}); err != nil {
		t.Fatal(err)
	}
	if got := tokens.take(); !slices.Equal(got, []string{"nobody has any"}) {
		t.Errorf("the table was told %q", got)
	}
	checkNothingAsked(t, s)
	closeStore(t, s)
}

func checkNothingAsked(t *testing.T, s *Store) {
	t.Helper()
	for _, user := range []string{"", "bob"} {
		if err := putAs(s, user, "x"); err != nil {
			t.Errorf("%q puts with auth disabled: %v", user, err)
		}
	}
}

// TestHeaderIsTheStores: what is applied here is what is in the log, whatever header the request has.
func TestHeaderIsTheStores(t *testing.T) {
	s := newHarness(t).open()
	defer closeStore(t, s)
	guard(t, s)
	r := &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("b")}, Header: &pb.RequestHeader{Username: "root", AuthRevision: 100}}
	if _, err := s.Propose(context.Background(), Command{Kind: mvcc.KindPut, Request: r}); !errors.Is(err, auth.ErrUserEmpty) {
		t.Errorf("nobody, with a header: %v", err)
	}
	if _, err := as(s, "\xff", mvcc.KindPut, r); err == nil || errors.Is(err, auth.ErrPermissionDenied) {
		t.Errorf("a name that is no UTF-8: %v", err)
	}
}

// TestAuthInCluster: who asks is known wherever the entry is applied, a permission that goes is gone on every member, and a snapshot brings users,
// and makes an end of tokens.
func TestAuthInCluster(t *testing.T) { synctest.Test(t, testAuthInCluster) }

func testAuthInCluster(t *testing.T) {
	tokens := make([]tokenLog, 3)
	c := newCluster(t, 3, fewEntries, func(i int, cfg *Config) { cfg.Tokens = &tokens[i] })
	guard(t, c.stores[c.follower()])
	follower := c.stores[c.follower()]
	await(t, "auth on the follower", func() bool { return follower.View().Auth().Enabled() })
	checkGuarded(t, follower)
	checkGuarded(t, c.stores[c.leader()])
	token := authenticate(t, follower, "alice", "t")
	c.converge()
	for i := range tokens {
		if got := tokens[i].take(); !slices.Equal(got, []string{"alice has " + token}) {
			t.Errorf("member %d has tokens %q", i, got)
		}
	}
	i := c.follower()
	c.stop(i)
	leader := c.stores[c.leader()]
	if _, err := as(leader, "root", mvcc.KindRoleDelete, &pb.InternalRaftRequest{AuthRoleDelete: &pb.AuthRoleDeleteRequest{Role: "r"}}); err != nil {
		t.Fatal(err)
	}
	for j := range 100 {
		if _, err := as(leader, "root", mvcc.KindPut, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", j%10), Value: make([]byte, 1000)}}); err != nil {
			t.Fatal(err)
		}
	}
	c.start(i)
	c.converge()
	await(t, "a snapshot", func() bool { return c.members[i].saw("installed a snapshot") })
	if err := putAs(c.stores[i], "alice", "a"); !errors.Is(err, auth.ErrPermissionDenied) {
		t.Errorf("alice puts without her role: %v", err)
	}
	if got := tokens[i].take(); !slices.Equal(got, []string{"nobody has any"}) {
		t.Errorf("after the snapshot the table was told %q", got)
	}
	c.converge()
}

// TestLeaseExpiresWithAuth: a lease ends though nobody asks for it, and takes keys that few may write.
func TestLeaseExpiresWithAuth(t *testing.T) {
	h := newHarness(t)
	s := h.open()
	defer closeStore(t, s)
	guard(t, s)
	if _, err := as(s, "", mvcc.KindLeaseGrant, &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: 7, TTL: 5}}); err != nil {
		t.Fatal(err)
	}
	if _, err := as(s, "root", mvcc.KindPut, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("z"), Lease: 7}}); err != nil {
		t.Fatal(err)
	}
	if _, err := as(s, "alice", mvcc.KindLeaseRevoke, &pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: 7}}); !errors.Is(err, auth.ErrPermissionDenied) {
		t.Errorf("alice revokes a lease of root's key: %v", err)
	}
	await(t, "the end of the lease", func() bool {
		h.pass(5e9)
		_, there := s.View().Lease(7)
		return !there && s.View().Get([]byte("z")) == nil
	})
}
