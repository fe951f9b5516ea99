package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/kubeshim/shim/pkg/auth/password"
	"github.com/kubeshim/shim/pkg/auth/token"
	"github.com/kubeshim/shim/pkg/raftstore"
)

// startAuth starts a server with tokens of a kind, the user root and auth enabled.
func startAuth(t *testing.T, kind string, opts Options) *testServer {
	t.Helper()
	tokens, err := token.New(token.Options{Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	opts.Tokens = tokens
	if opts.BcryptCost == 0 {
		opts.BcryptCost = password.CostMin
	}
	ts, ctx := startServer(t, opts, func(c *raftstore.Config) { c.Tokens = tokens }), within(t)
	mustOf[*clientv3.AuthUserAddResponse](t)(ts.cli.UserAdd(ctx, "root", "secret"))
	mustOf[*clientv3.AuthUserGrantRoleResponse](t)(ts.cli.UserGrantRole(ctx, "root", "root"))
	mustOf[*clientv3.AuthEnableResponse](t)(ts.cli.AuthEnable(ctx))
	return ts
}

// login answers a context with a token of the user.
func (ts *testServer) login(t *testing.T, ctx context.Context, name, password string) context.Context {
	t.Helper()
	r := mustOf[*pb.AuthenticateResponse](t)(pb.NewAuthClient(ts.conn(t)).Authenticate(ctx, &pb.AuthenticateRequest{Name: name, Password: password}))
	return withToken(ctx, r.Token)
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
}

// TestLoginFlood: while many clients try passwords, one after the other, every write of somebody who is logged in goes through, and no more
// passwords are checked at once than there are places. A client that gives up waiting gets its own error, at once.
func TestLoginFlood(t *testing.T) {
	ts := startAuth(t, "simple", Options{})
	ctx := within(t)
	root := ts.login(t, ctx, "root", "secret")
	kv := pb.NewKVClient(ts.conn(t))

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var tried atomic.Int64
	client := pb.NewAuthClient(ts.conn(t))
	for i := range 50 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r := &pb.AuthenticateRequest{Name: "root", Password: fmt.Sprint("wrong", i)}
				if i%10 == 0 {
					r.Password = "secret"
				}
				_, err := client.Authenticate(ctx, r)
				if i%10 == 0 && err != nil || i%10 != 0 && !errors.Is(rpctypes.Error(err), rpctypes.ErrAuthFailed) {
					t.Errorf("login with %q: %v", r.Password, err)
					return
				}
				tried.Add(1)
			}
		})
	}
	for i := range 300 {
		mustOf[*pb.PutResponse](t)(kv.Put(root, &pb.PutRequest{Key: []byte("k"), Value: []byte(fmt.Sprint(i))}))
	}
	close(stop)
	wg.Wait()
	if tried.Load() == 0 {
		t.Error("nobody tried a password")
	}
	got := mustOf[*pb.RangeResponse](t)(kv.Range(root, &pb.RangeRequest{Key: []byte("k")}))
	if v := got.Kvs[0].Version; v != 300 {
		t.Errorf("version %d after 300 writes", v)
	}
}

// TestNobodyHashes: who may not add users is refused before its password is hashed, which would take far longer than the test may.
func TestNobodyHashes(t *testing.T) {
	ts := startAuth(t, "simple", Options{})
	ts.passwords = password.NewHasher(password.CostMax)
	client := pb.NewAuthClient(ts.conn(t))
	if _, err := client.UserAdd(within(t), &pb.AuthUserAddRequest{Name: "x", Password: "x"}); !errors.Is(rpctypes.Error(err), rpctypes.ErrUserEmpty) {
		t.Errorf("nobody adds a user: %v", err)
	}
	if _, err := client.UserChangePassword(within(t), &pb.AuthUserChangePasswordRequest{Name: "root", Password: "x"}); !errors.Is(rpctypes.Error(err), rpctypes.ErrUserEmpty) {
		t.Errorf("nobody changes a password: %v", err)
	}
}

// TestTokenOfTheFuture: a signed token of an auth revision that is still to come, as after a restore, is not good for reads and is for writes,
// as with etcd; a simple token of an entry that never was is none.
func TestTokenOfTheFuture(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	ts := startAuth(t, "jwt,sign-method=HS256,priv-key="+secret, Options{})
	future, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"username": "root", "revision": 100, "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	kv, ctx := pb.NewKVClient(ts.conn(t)), withToken(within(t), future)
	mustOf[*pb.PutResponse](t)(kv.Put(ctx, &pb.PutRequest{Key: []byte("k")}))
	if _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")}); !errors.Is(rpctypes.Error(err), rpctypes.ErrAuthOldRevision) {
		t.Errorf("read with a token of the future: %v", err)
	}

	simple := startAuth(t, "simple", Options{})
	kv, ctx = pb.NewKVClient(simple.conn(t)), withToken(within(t), "abcdefghijklmnop.18446744073709551615")
	if _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true}); !errors.Is(rpctypes.Error(err), rpctypes.ErrInvalidAuthToken) {
		t.Errorf("read with a token of the future: %v", err)
	}
}

// TestPermissionsInOrder: a permission that is taken back while its user writes is taken back at one revision: the writes before it are
// there, and none is behind it.
func TestPermissionsInOrder(t *testing.T) {
	ts := startAuth(t, "simple", Options{})
	ctx := within(t)
	root := ts.login(t, ctx, "root", "secret")
	admin, kv := pb.NewAuthClient(ts.conn(t)), pb.NewKVClient(ts.conn(t))
	mustOf[*pb.AuthUserAddResponse](t)(admin.UserAdd(root, &pb.AuthUserAddRequest{Name: "alice", Password: "a"}))
	mustOf[*pb.AuthRoleAddResponse](t)(admin.RoleAdd(root, &pb.AuthRoleAddRequest{Name: "rw"}))
	perm := &authpb.Permission{PermType: authpb.Permission_READWRITE, Key: []byte("k")}
	mustOf[*pb.AuthRoleGrantPermissionResponse](t)(admin.RoleGrantPermission(root, &pb.AuthRoleGrantPermissionRequest{Name: "rw", Perm: perm}))
	mustOf[*pb.AuthUserGrantRoleResponse](t)(admin.UserGrantRole(root, &pb.AuthUserGrantRoleRequest{User: "alice", Role: "rw"}))
	alice := ts.login(t, ctx, "alice", "a")

	var wg sync.WaitGroup
	var last atomic.Int64
	writing := make(chan struct{}, 1)
	for range 4 {
		wg.Go(func() {
			for {
				r, err := kv.Put(alice, &pb.PutRequest{Key: []byte("k")})
				switch {
				case err == nil:
					for rev := last.Load(); r.Header.Revision > rev && !last.CompareAndSwap(rev, r.Header.Revision); rev = last.Load() {
					}
					select {
					case writing <- struct{}{}:
					default:
					}
				case errors.Is(rpctypes.Error(err), rpctypes.ErrAuthOldRevision):
				case errors.Is(rpctypes.Error(err), rpctypes.ErrPermissionDenied):
					return
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	<-writing
	revoked := mustOf[*pb.AuthRoleRevokePermissionResponse](t)(admin.RoleRevokePermission(root, &pb.AuthRoleRevokePermissionRequest{Role: "rw", Key: []byte("k")}))
	wg.Wait()
	if last.Load() != revoked.Header.Revision {
		t.Errorf("the last write was at %d, the permission was taken back at %d", last.Load(), revoked.Header.Revision)
	}
}

// TestListsAreRefusedBeforeTheyQueue: who may not read a list hears so at once, also while nobody has a turn, and takes no place.
func TestListsAreRefusedBeforeTheyQueue(t *testing.T) {
	const budget = 1 << 20
	ts := startAuth(t, "simple", Options{ListBytes: budget})
	ctx := within(t)
	root := ts.login(t, ctx, "root", "secret")
	admin, kv := pb.NewAuthClient(ts.conn(t)), pb.NewKVClient(ts.conn(t))
	for i := range 100 {
		mustOf[*pb.PutResponse](t)(kv.Put(root, &pb.PutRequest{Key: fmt.Append(nil, "k", i), Value: make([]byte, 8<<10)}))
	}
	mustOf[*pb.AuthUserAddResponse](t)(admin.UserAdd(root, &pb.AuthUserAddRequest{Name: "alice", Password: "a"}))
	alice := ts.login(t, ctx, "alice", "a")
	all := mustOf[*grant](t)(ts.lists.acquire(ctx, budget))
	read := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: everyKey}}}}
	for who, c := range map[string]struct {
		ctx  context.Context
		want error
	}{"alice": {alice, rpctypes.ErrPermissionDenied}, "nobody": {ctx, rpctypes.ErrUserEmpty}} {
		for name, call := range map[string]func() error{
			"range": func() error { _, err := kv.Range(c.ctx, everyKey); return err },
			"txn":   func() error { _, err := kv.Txn(c.ctx, read); return err },
			"stream": func() error {
				s, err := kv.RangeStream(c.ctx, everyKey)
				if err == nil {
					_, err = s.Recv()
				}
				return err
			},
		} {
			if err := call(); !errors.Is(rpctypes.Error(err), c.want) {
				t.Errorf("%s of %s: %v, want %v", name, who, err, c.want)
			}
		}
	}
	wantBudget(t, ts.lists, budget, 0)
	if s := ts.lists.Stats(); s.Waited != 0 {
		t.Errorf("%d have waited", s.Waited)
	}
	listed := make(chan error, 1)
	go func() { _, err := kv.Range(root, everyKey); listed <- err }()
	ts.lists.await(func(s ListStats) bool { return s.Waiting == 1 }) // who may waits
	all.end()
	if err := <-listed; err != nil {
		t.Error(err)
	}
}
