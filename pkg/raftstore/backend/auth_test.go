package backend

import (
	"encoding/hex"
	"fmt"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/auth"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

var root = &pb.RequestHeader{Username: "root", AuthRevision: 1}

// guard makes users and roles, and enables auth.
func (m *machine) guard() {
	m.t.Helper()
	for _, r := range []*pb.InternalRaftRequest{
		{AuthUserAdd: &pb.AuthUserAddRequest{Name: "root", HashedPassword: "c2VjcmV0"}},
		{AuthUserAdd: &pb.AuthUserAddRequest{Name: "cn", Options: &authpb.UserAddOptions{NoPassword: true}}},
		{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: "root"}},
		{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: "r"}},
		{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}},
		{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "cn", Role: "r"}},
		{AuthRoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: &authpb.Permission{PermType: authpb.Permission_READWRITE, Key: []byte("k"), RangeEnd: []byte("l")}}},
		{AuthEnable: &pb.AuthEnableRequest{}},
	} {
		if res := m.apply(r); res.Err != nil {
			m.t.Fatalf("%v: %v", r, res.Err)
		}
	}
}

// authRowsOf are the rows of etcd's buckets of auth.
func authRowsOf(t *testing.T, db *DB) string {
	t.Helper()
	var out strings.Builder
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, b := range [][]byte{bucketAuth, bucketAuthUsers, bucketAuthRoles} {
		_ = tx.Bucket(b).ForEach(func(k, v []byte) error {
			fmt.Fprintf(&out, "%s/%s %s\n", b, k, hex.EncodeToString(v))
			return nil
		})
	}
	return out.String()
}

// TestAuthRows: the rows are etcd's, byte for byte.
func TestAuthRows(t *testing.T) {
	m := newMachine(t)
	m.checkpoint()
	if got := authRowsOf(t, m.db); got != "" {
		t.Errorf("a store without users and roles holds %s", got)
	}
	m.guard()
	m.checkpoint()
	want := "auth/authEnabled 01\nauth/authRevision 0000000000000008\n"
	for _, u := range []*authpb.User{
		{Name: []byte("cn"), Roles: []string{"r"}, Options: &authpb.UserAddOptions{NoPassword: true}},
		{Name: []byte("root"), Password: []byte("secret"), Roles: []string{"root"}, Options: &authpb.UserAddOptions{}},
	} {
		want += fmt.Sprintf("authUsers/%s %s\n", u.Name, row(t, u))
	}
	for _, r := range []*authpb.Role{
		{Name: []byte("r"), KeyPermission: []*authpb.Permission{{PermType: authpb.Permission_READWRITE, Key: []byte("k"), RangeEnd: []byte("l")}}},
		{Name: []byte("root")},
	} {
		want += fmt.Sprintf("authRoles/%s %s\n", r.Name, row(t, r))
	}
	if got := authRowsOf(t, m.db); got != want {
		t.Errorf("rows\n%s, want\n%s", got, want)
	}
	m.apply(&pb.InternalRaftRequest{AuthRoleDelete: &pb.AuthRoleDeleteRequest{Role: "r"}, Header: root})
	m.apply(&pb.InternalRaftRequest{AuthUserDelete: &pb.AuthUserDeleteRequest{Name: "cn"}, Header: root})
	m.apply(&pb.InternalRaftRequest{AuthDisable: &pb.AuthDisableRequest{}, Header: root})
	m.checkpoint()
	if got := authRowsOf(t, m.db); strings.Contains(got, "cn") || strings.Contains(got, "/r ") || !strings.HasPrefix(got, "auth/authEnabled 00\nauth/authRevision 000000000000000b\n") {
		t.Errorf("rows after what was deleted\n%s", got)
	}
	var dump strings.Builder
	if err := m.db.Dump(&dump); err != nil || !strings.Contains(dump.String(), `"root" roles=["root"] password=true`) || strings.Contains(dump.String(), "secret") {
		t.Errorf("dump %s, %v", &dump, err)
	}
}

func row(t *testing.T, m proto.Message) string {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

// TestAuthCheckpoints: whatever is done to users and roles between checkpoints, the file holds them.
func TestAuthCheckpoints(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	m := newMachine(t)
	m.guard()
	for range 60 {
		for range rng.IntN(8) {
			m.apply(randomAuth(rng))
		}
		m.checkpoint()
		var loaded *auth.State
		if err := m.db.Load(func(c Content, rows []iter.Seq2[mvcc.Row, error]) error { loaded = c.Auth; return nil }); err != nil {
			t.Fatal(err)
		}
		if want := m.state.Publish().Auth(); loaded.Sum() != want.Sum() || loaded.Revision() != want.Revision() || loaded.Enabled() != want.Enabled() {
			t.Fatalf("the file holds revision %d, enabled %v, %v %v; the state %d, %v, %v %v", loaded.Revision(), loaded.Enabled(), loaded.Users(), loaded.Roles(),
				want.Revision(), want.Enabled(), want.Users(), want.Roles())
		}
	}
}

func randomAuth(rng *rand.Rand) *pb.InternalRaftRequest {
	name, role := fmt.Sprintf("u%d", rng.IntN(6)), fmt.Sprintf("r%d", rng.IntN(4))
	all := []*pb.InternalRaftRequest{
		{AuthUserAdd: &pb.AuthUserAddRequest{Name: name}}, {AuthUserAdd: &pb.AuthUserAddRequest{Name: name}}, {AuthUserDelete: &pb.AuthUserDeleteRequest{Name: name}},
		{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: role}}, {AuthRoleDelete: &pb.AuthRoleDeleteRequest{Role: role}},
		{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: name, Role: role}}, {AuthUserRevokeRole: &pb.AuthUserRevokeRoleRequest{Name: name, Role: role}},
		{AuthEnable: &pb.AuthEnableRequest{}}, {AuthDisable: &pb.AuthDisableRequest{}},
	}
	r := all[rng.IntN(len(all))]
	r.Header = root
	return r
}

// TestAuthCorrupt: a row that cannot be is found, and named.
func TestAuthCorrupt(t *testing.T) {
	for name, change := range map[string]func(*bbolt.Tx) error{
		"holds":        func(tx *bbolt.Tx) error { return tx.Bucket(bucketAuthUsers).Put([]byte("other"), []byte("\x0a\x01u")) },
		"cannot parse": func(tx *bbolt.Tx) error { return tx.Bucket(bucketAuthRoles).Put([]byte("r"), []byte("\x0a")) },
		"too short":    func(tx *bbolt.Tx) error { return tx.Bucket(bucketAuth).Put(authRevision, []byte{1}) },
	} {
		path := filepath.Join(t.TempDir(), "db")
		m := &machine{t: t, state: mvcc.New(mvcc.Options{})}
		m.open(path)
		m.checkpoint()
		if err := m.db.Close(); err != nil {
			t.Fatal(err)
		}
		file, err := bbolt.Open(path, 0o600, nil)
		if err == nil {
			err = file.Update(change)
			file.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		m.open(path)
		if _, err := load(m.db); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
