package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// machine applies requests in a row.
type machine struct {
	t testing.TB
	*State
}

func newMachine(t testing.TB) *machine { return &machine{t, New()} }

// apply applies requests that have to succeed.
func (m *machine) apply(i Info, rs ...*pb.InternalRaftRequest) {
	m.t.Helper()
	for _, r := range rs {
		next, _, err := m.State.Apply(i, r)
		if err != nil {
			m.t.Fatalf("%v: %v", r, err)
		}
		m.State = next
	}
}

func userAdd(name string) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{AuthUserAdd: &pb.AuthUserAddRequest{Name: name, HashedPassword: base64.StdEncoding.EncodeToString([]byte("hash of " + name))}}
}

func roleAdd(name string) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: name}}
}

func grantRole(user, role string) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: user, Role: role}}
}

func grantPermission(role string, typ authpb.Permission_Type, key, end string) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{AuthRoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: role,
		Perm: &authpb.Permission{PermType: typ, Key: []byte(key), RangeEnd: []byte(end)}}}
}

var (
	enable  = &pb.InternalRaftRequest{AuthEnable: &pb.AuthEnableRequest{}}
	disable = &pb.InternalRaftRequest{AuthDisable: &pb.AuthDisableRequest{}}
)

const (
	reads  = authpb.Permission_READ
	writes = authpb.Permission_WRITE
	both   = authpb.Permission_READWRITE
)

// enabled is a state with root, and alice, who has the roles a and b.
func enabled(t testing.TB, permissions ...*pb.InternalRaftRequest) *machine {
	m := newMachine(t)
	m.apply(Info{}, userAdd("root"), roleAdd("root"), grantRole("root", "root"), userAdd("alice"), roleAdd("a"), roleAdd("b"),
		grantRole("alice", "b"), grantRole("alice", "a"))
	m.apply(Info{}, permissions...)
	m.apply(Info{}, enable)
	return m
}

func (m *machine) as(user string) Info { return Info{user, m.Revision()} }

// TestRangesTogether: ranges of several roles count together, gaps do not.
func TestRangesTogether(t *testing.T) {
	m := enabled(t, grantPermission("a", reads, "b", "d"), grantPermission("b", reads, "d", "f"), grantPermission("a", both, "k", ""),
		grantPermission("b", writes, "w", "\x00"), grantPermission("b", reads, "a", "c"))
	alice := m.as("alice")
	for _, c := range []struct {
		check    func(Info, []byte, []byte) error
		key, end string
		want     error
	}{
		{m.CheckRange, "a", "f", nil},
		{m.CheckRange, "a", "f\x00", ErrPermissionDenied},
		{m.CheckRange, "a", "\x00", ErrPermissionDenied},
		{m.CheckRange, "Z", "b", ErrPermissionDenied},
		{m.CheckRange, "k", "", nil},
		{m.CheckRange, "k", "k\x00", nil},
		{m.CheckRange, "k", "k\x01", ErrPermissionDenied},
		{m.CheckRange, "w", "", ErrPermissionDenied},
		{m.CheckDeleteRange, "w", "\x00", nil},
		{m.CheckDeleteRange, "x", "z", nil},
		{m.CheckDeleteRange, "v", "z", ErrPermissionDenied},
		{m.CheckDeleteRange, "k", "", nil},
		{m.CheckDeleteRange, "b", "c", ErrPermissionDenied},
	} {
		if err := c.check(alice, []byte(c.key), []byte(c.end)); !errors.Is(err, c.want) {
			t.Errorf("%q to %q: %v, want %v", c.key, c.end, err, c.want)
		}
	}
	if err := m.CheckRange(m.as("root"), []byte{0}, []byte{0}); err != nil {
		t.Errorf("root reads everything: %v", err)
	}
}

// TestOrderOfChecks: who asks for something in vain gets etcd's first reason.
func TestOrderOfChecks(t *testing.T) {
	m := enabled(t)
	old := m.as("alice")
	m.apply(m.as("root"), grantPermission("a", both, "k", ""))
	key := []byte("k")
	for _, c := range []struct {
		name       string
		i          Info
		put, admin error
	}{
		{"nobody", Info{}, ErrUserEmpty, ErrUserEmpty},
		{"a name without a revision", Info{Username: "alice"}, ErrUserEmpty, ErrPermissionDenied},
		{"a revision without a name", Info{Revision: m.Revision()}, ErrPermissionDenied, ErrUserEmpty},
		{"an old revision", old, ErrAuthOldRevision, ErrPermissionDenied},
		{"an unknown user", m.as("bob"), ErrPermissionDenied, ErrUserNotFound},
		{"a revision that is ahead", Info{"alice", m.Revision() + 5}, nil, ErrPermissionDenied},
		{"alice", m.as("alice"), nil, ErrPermissionDenied},
		{"root at an old revision", Info{"root", 1}, ErrAuthOldRevision, nil},
		{"root", m.as("root"), nil, nil},
	} {
		if err := m.CheckPut(c.i, key); !errors.Is(err, c.put) {
			t.Errorf("%s puts: %v, want %v", c.name, err, c.put)
		}
		if err := m.CheckAdmin(c.i); !errors.Is(err, c.admin) {
			t.Errorf("%s administers: %v, want %v", c.name, err, c.admin)
		}
	}
	m.apply(m.as("root"), disable)
	if err := errors.Join(m.CheckPut(Info{}, key), m.CheckAdmin(Info{}), m.CheckRange(old, key, nil), m.CheckDeleteRange(old, key, nil)); err != nil {
		t.Errorf("with auth disabled: %v", err)
	}
}

// TestValue: a state does not change with the ones that come of it.
func TestValue(t *testing.T) {
	m := enabled(t, grantPermission("a", both, "k", ""))
	before, users, roles := m.State, cloned(m.Users()), cloned(m.Roles())
	sum, alice := before.Sum(), m.as("alice")
	for _, r := range []*pb.InternalRaftRequest{
		userAdd("bob"), grantRole("bob", "a"), roleAdd("c"), grantPermission("a", reads, "k", ""), grantPermission("a", reads, "a", "b"),
		{AuthUserRevokeRole: &pb.AuthUserRevokeRoleRequest{Name: "alice", Role: "b"}},
		{AuthUserChangePassword: &pb.AuthUserChangePasswordRequest{Name: "alice", HashedPassword: "AAAA"}},
		{AuthRoleRevokePermission: &pb.AuthRoleRevokePermissionRequest{Role: "a", Key: []byte("k")}},
		{AuthRoleDelete: &pb.AuthRoleDeleteRequest{Role: "a"}}, {AuthUserDelete: &pb.AuthUserDeleteRequest{Name: "alice"}}, disable,
	} {
		revision := m.Revision()
		m.apply(m.as("root"), r)
		if m.Revision() != revision+1 {
			t.Errorf("%v: auth revision %d follows %d", r, m.Revision(), revision)
		}
	}
	if !equal(before.Users(), users) || !equal(before.Roles(), roles) || before.Sum() != sum || !before.Enabled() || before.CheckPut(alice, []byte("k")) != nil {
		t.Errorf("the state has changed: %v %v", before.Users(), before.Roles())
	}
}

// TestRefusedIsTheSame: what is refused, and what changes nothing, leaves the very state.
func TestRefusedIsTheSame(t *testing.T) {
	m := enabled(t)
	for _, r := range []*pb.InternalRaftRequest{
		userAdd("alice"), roleAdd("a"), enable, grantRole("alice", "a"), {Put: &pb.PutRequest{}},
		{AuthStatus: &pb.AuthStatusRequest{}}, {AuthUserDelete: &pb.AuthUserDeleteRequest{Name: "root"}},
		{Authenticate: &pb.InternalAuthenticateRequest{Name: "alice"}},
	} {
		if next, _, _ := m.Apply(m.as("root"), r); next != m.State {
			t.Errorf("%v makes another state", r)
		}
	}
	if _, _, err := m.Apply(m.as("root"), &pb.InternalRaftRequest{Put: &pb.PutRequest{}}); !errors.Is(err, ErrNotAuth) {
		t.Errorf("a put: %v", err)
	}
}

// TestLoad: rows in any order make the state that wrote them, and what cannot be is refused.
func TestLoad(t *testing.T) {
	m := enabled(t, grantPermission("a", both, "k", "m"))
	var users []*authpb.User
	for _, u := range m.Users() {
		users = append([]*authpb.User{u}, users...)
	}
	s, err := Load(true, m.Revision(), users, m.Roles())
	if err != nil {
		t.Fatal(err)
	}
	if s.Sum() != m.Sum() || !s.Enabled() || s.Revision() != m.Revision() || !equal(s.Users(), m.Users()) || !equal(s.Roles(), m.Roles()) {
		t.Errorf("loaded %v %v", s.Users(), s.Roles())
	}
	if err := s.CheckRange(m.as("alice"), []byte("k"), []byte("m")); err != nil {
		t.Errorf("alice reads: %v", err)
	}
	if s, err := Load(false, 0, nil, nil); err != nil || s.Revision() != 1 || s.Sum() != New().Sum() {
		t.Errorf("nothing: %+v, %v", s, err)
	}
	if _, err := Load(false, 1, append(users, users[0]), nil); err == nil {
		t.Error("a user that is there twice was loaded")
	}
	if _, err := Load(false, 1, nil, []*authpb.Role{{}}); err == nil {
		t.Error("a role without a name was loaded")
	}
	// What a hand-made or damaged file may name gives nothing.
	odd, err := Load(true, 1, []*authpb.User{{Name: []byte("u"), Roles: []string{"gone", "r"}}}, []*authpb.Role{{Name: []byte("r"), KeyPermission: []*authpb.Permission{
		{PermType: both, Key: []byte("m"), RangeEnd: []byte("c")}, {PermType: both, RangeEnd: []byte{0}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := odd.CheckPut(Info{"u", 1}, []byte("d")); !errors.Is(err, ErrPermissionDenied) {
		t.Errorf("an inverted range and one without a key: %v", err)
	}
}

// TestPasswords: hashes are kept as they come, and what is no hash is refused.
func TestPasswords(t *testing.T) {
	m := newMachine(t)
	m.apply(Info{}, userAdd("u"), &pb.InternalRaftRequest{AuthUserAdd: &pb.AuthUserAddRequest{Name: "cn", Options: &authpb.UserAddOptions{NoPassword: true}, HashedPassword: "AAAA"}})
	if got := string(m.User("u").Password); got != "hash of u" || m.User("u").Options == nil {
		t.Errorf("user u: %v", m.User("u"))
	}
	if u := m.User("cn"); len(u.Password) != 0 || !u.Options.NoPassword {
		t.Errorf("a user without a password: %v", u)
	}
	change := func(name, clear, hashed string) error {
		_, _, err := m.Apply(Info{}, &pb.InternalRaftRequest{AuthUserChangePassword: &pb.AuthUserChangePasswordRequest{Name: name, Password: clear, HashedPassword: hashed}})
		return err
	}
	if err := change("u", "", "not base64!"); !errors.Is(err, ErrNoPasswordUser) {
		t.Errorf("no base64: %v", err)
	}
	if err := change("u", "secret", ""); !errors.Is(err, ErrNoPasswordUser) {
		t.Errorf("in the clear: %v", err)
	}
	if err := change("cn", "", "not base64!"); err != nil {
		t.Errorf("of a user without a password: %v", err)
	}
}

func TestDelta(t *testing.T) {
	m := enabled(t)
	if d := m.Since(m.State); fmt.Sprint(d) != fmt.Sprint(Delta{}) {
		t.Errorf("since itself: %v", d)
	}
	before := m.State
	m.apply(m.as("root"), userAdd("zoe"), userAdd("al"), roleAdd("c"), &pb.InternalRaftRequest{AuthUserDelete: &pb.AuthUserDeleteRequest{Name: "alice"}},
		&pb.InternalRaftRequest{AuthRoleDelete: &pb.AuthRoleDeleteRequest{Role: "b"}}, grantRole("zoe", "c"), disable)
	d := m.Since(before)
	var text string
	for _, u := range d.UsersPut {
		text += fmt.Sprintf("+%s%v ", u.Name, u.Roles)
	}
	for _, r := range d.RolesPut {
		text += fmt.Sprintf("+%s ", r.Name)
	}
	text += fmt.Sprint(d.UsersDeleted, d.RolesDeleted, d.EnabledChanged, d.Enabled, d.Revision-before.Revision())
	if want := "+al[] +zoe[c] +c [alice] [b] true false 7"; text != want {
		t.Errorf("delta %s, want %s", text, want)
	}
}

func cloned[T proto.Message](list []T) []T {
	out := make([]T, len(list))
	for i, m := range list {
		out[i] = proto.Clone(m).(T)
	}
	return out
}

func equal[T proto.Message](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !proto.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}
