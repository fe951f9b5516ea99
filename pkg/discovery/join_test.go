package discovery

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kubeshim/shim/internal/freeport"
)

func memberID(n int) types.ID { return types.ID(0xabc0 + n) }

// TestJoin: both kinds of services bring members together.
func TestJoin(t *testing.T) {
	for _, name := range []string{"etcd", "shim"} {
		t.Run(name, func(t *testing.T) {
			s := startService(t, name)
			t.Run("three at once", func(t *testing.T) { threeAtOnce(t, s) })
			t.Run("over-full", func(t *testing.T) { overFull(t, s) })
			t.Run("again", func(t *testing.T) { again(t, s) })
			t.Run("bad tokens", func(t *testing.T) { badTokens(t, s) })
			t.Run("service dies meanwhile", func(t *testing.T) { serviceDies(t, s) })
		})
	}
}

func threeAtOnce(t *testing.T, s *service) {
	s.put(sizeKey("three"), "3")
	s.put(membersPrefix("three")+"/noise", "no member at all")
	var wg sync.WaitGroup
	results := make([]result, 3)
	for i := range results {
		wg.Go(func() {
			cluster, err := Join(t.Context(), s.options("three", nil), memberID(i+1), self(i+1))
			results[i] = result{cluster, err}
		})
	}
	wg.Wait()
	got := strings.Split(results[0].cluster, ",")
	slices.Sort(got)
	if want := []string{self(1), self(2), self(3)}; !slices.Equal(got, want) {
		t.Errorf("cluster %v, want %v", got, want)
	}
	for i, r := range results {
		if r != results[0] || r.err != nil {
			t.Errorf("member %d has %+v, the first %+v", i+1, r, results[0])
		}
	}
}

// Of more members than there is room for, the first are the cluster.
func overFull(t *testing.T, s *service) {
	s.put(sizeKey("two"), "2")
	first := joiner(t, s, "two", 1)
	second := joiner(t, s, "two", 2)
	third := joiner(t, s, "two", 3)
	if r := <-third; !errors.Is(r.err, ErrFullCluster) || r.err.Error() != "failed to join discovery cluster (discovery: cluster is full)" {
		t.Errorf("third: %+v", r)
	}
	for _, c := range []chan result{first, second} {
		if r := <-c; r.err != nil || r.cluster != self(1)+","+self(2) {
			t.Errorf("%+v", r)
		}
	}
}

// A member that starts again finds its own place.
func again(t *testing.T, s *service) {
	cluster, err := Join(t.Context(), s.options("two", nil), memberID(2), self(2))
	if err != nil || cluster != self(1)+","+self(2) {
		t.Errorf("%s, %v", cluster, err)
	}
}

func badTokens(t *testing.T, s *service) {
	s.put(sizeKey("word"), "three")
	s.put(sizeKey("zero"), "0")
	s.put(sizeKey("urls"), "1")
	for token, want := range map[string]error{"none": ErrSizeNotFound, "word": ErrBadSizeKey, "zero": ErrBadSizeKey, "urls": ErrInvalidURL} {
		if _, err := Join(t.Context(), s.options(token, nil), memberID(1), "m1=nonsense"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", token, err, want)
		}
	}
	resp, err := s.kv.Range(t.Context(), &pb.RangeRequest{Key: []byte(memberKey("none", memberID(1)))})
	if err != nil || len(resp.Kvs) > 0 {
		t.Errorf("a member registered under a token without a size: %v, %v", resp, err)
	}
}

// A waiting member outlives the service's restart.
func serviceDies(t *testing.T, s *service) {
	s.put(sizeKey("dies"), "2")
	retried := make(chan struct{}, 1)
	registered := make(chan struct{})
	o := s.options("dies", func(e Event) {
		switch e.(type) {
		case Registered:
			close(registered)
		case Retrying:
			select {
			case retried <- struct{}{}:
			default:
			}
		}
	})
	o.RequestTimeout = 3 * time.Second
	done := make(chan result, 1)
	go func() {
		cluster, err := Join(t.Context(), o, memberID(1), self(1))
		done <- result{cluster, err}
	}()
	<-registered
	s.stop()
	<-retried
	s.start()
	if r := <-joiner(t, s, "dies", 2); r.err != nil {
		t.Errorf("second: %v", r.err)
	}
	if r := <-done; r.err != nil || r.cluster != self(1)+","+self(2) {
		t.Errorf("first: %+v", r)
	}
}

// TestJoinWithUser: the real etcd asks who is there, once it is told to.
func TestJoinWithUser(t *testing.T) {
	s := startService(t, "etcd")
	s.put(sizeKey("one"), "1")
	ctx := t.Context()
	o := s.options("one", nil)
	o.User, o.Password = "finder", "secret"
	if _, err := Join(ctx, o, memberID(1), self(1)); err != nil {
		t.Errorf("a user where none is asked for: %v", err)
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Password: "r", Options: &authpb.UserAddOptions{}}))
	must(s.auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "finder", Password: "secret", Options: &authpb.UserAddOptions{}}))
	must(s.auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "registry"}))
	must(s.auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "registry", Perm: &authpb.Permission{
		PermType: authpb.Permission_READWRITE, Key: []byte(registryPrefix), RangeEnd: prefixEnd(registryPrefix)}}))
	must(s.auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}))
	must(s.auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "finder", Role: "registry"}))
	must(s.auth.AuthEnable(ctx, &pb.AuthEnableRequest{}))
	if _, err := Join(ctx, o, memberID(1), self(1)); err != nil {
		t.Error(err)
	}
	o.User, o.Password = "finder:secret", ""
	if _, err := Join(ctx, o, memberID(1), self(1)); err != nil {
		t.Error(err)
	}
	o.User, o.Password = "finder", "wrong"
	if _, err := Join(ctx, o, memberID(1), self(1)); err == nil || !strings.Contains(err.Error(), "authentication failed, invalid user ID or password") {
		t.Error(err)
	}
}

// TestJoinEnds: nobody answers, and the caller gives up.
func TestJoinEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var waits []time.Duration
	o := Options{Endpoints: []string{freeport.Addr(t), "unix:" + t.TempDir() + "/none"}, Token: "t", Insecure: true, RequestTimeout: time.Millisecond,
		After: func(d time.Duration) <-chan time.Time {
			if waits = append(waits, d); len(waits) == 10 {
				cancel()
				return nil
			}
			c := make(chan time.Time)
			close(c)
			return c
		}}
	if _, err := Join(ctx, o, memberID(1), self(1)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	want := []time.Duration{2, 4, 8, 16, 32, 64, 128, 256, 256, 256}
	for i := range want {
		want[i] *= time.Second
	}
	if !slices.Equal(waits, want) {
		t.Errorf("pauses %v, want %v", waits, want)
	}
	for _, o := range []Options{{}, {Token: "t"}, {Endpoints: []string{" "}, Token: "t"}, {Endpoints: []string{"a:1"}, Token: "t", CertFile: "c"}} {
		if _, err := Join(t.Context(), o, memberID(1), self(1)); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestHasRoom(t *testing.T) {
	kv := func(n int, rev int64) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(memberKey("t", memberID(n))), Value: []byte(self(n)), CreateRevision: rev}
	}
	r := registry{size: 2, members: parseMembers([]*mvccpb.KeyValue{kv(1, 9), kv(2, 7), kv(3, 8)}, func(Ignored) {})}
	for n, want := range map[int]bool{1: false, 2: true, 3: true, 4: false} {
		if got := r.hasRoom(memberKey("t", memberID(n))); got != want {
			t.Errorf("member %d: %v", n, got)
		}
	}
	if got, err := r.initialCluster(); got != self(2)+","+self(3) || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	r.members = r.members[:1]
	if !r.hasRoom(memberKey("t", memberID(4))) {
		t.Error("no room for the second of two")
	}
}

func TestEndpoints(t *testing.T) {
	for in, want := range map[string]endpoint{
		"http://a:1":            {"a:1", "a:1", "http"},
		"https://a.example:1":   {"a.example:1", "a.example:1", "https"},
		"a:1":                   {"a:1", "a:1", ""},
		"unix:///run/etcd.sock": {"unix:/run/etcd.sock", "etcd.sock", "unix"},
		"unixs:etcd.sock":       {"unix:etcd.sock", "etcd.sock", "unixs"},
	} {
		if got := parseEndpoint(in); got != want {
			t.Errorf("%s: %+v, want %+v", in, got, want)
		}
	}
	for _, c := range []struct {
		o      Options
		scheme string
		tls    bool
	}{
		{Options{Insecure: true}, "", false},
		{Options{Insecure: true}, "http", false},
		{Options{Insecure: true}, "https", true},
		{Options{}, "", true},
		{Options{}, "http", false},
		{Options{Insecure: true, InsecureSkipVerify: true}, "", true},
	} {
		creds, err := c.o.credentials(c.scheme)
		if err != nil || (creds.Info().SecurityProtocol == "tls") != c.tls {
			t.Errorf("%+v %q: %v, %v", c.o, c.scheme, creds, err)
		}
	}
}
