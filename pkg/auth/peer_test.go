package auth

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	etcdauth "go.etcd.io/etcd/server/v3/auth"
)

// TestPeer: etcd's own auth store and ours are given the same commands, as the same users, and give the same answers, errors and rows, and
// the same verdicts on keys.
func TestPeer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		etcd := newPeer(t)
		defer etcd.store.Close()
		ours := New()
		for range rapid.IntRange(1, 60).Draw(t, "commands") {
			i := Info{Username: genName().Draw(t, "as"), Revision: ours.Revision()}
			r := genRequest(t)
			next, answer, err := ours.Apply(i, r)
			theirs, theirErr := etcd.apply(i, r)
			if text(err) != text(theirErr) || err == nil && !sameAnswer(answer, theirs) {
				t.Fatalf("%v as %v: %v, %v; etcd: %v, %v", r, i, answer, err, theirs, theirErr)
			}
			ours = next
			if ours.Revision() != etcd.store.Revision() || ours.Enabled() != etcd.store.IsAuthEnabled() {
				t.Fatalf("%v: revision %d, enabled %v; etcd: %d, %v", r, ours.Revision(), ours.Enabled(), etcd.store.Revision(), etcd.store.IsAuthEnabled())
			}
			if !equal(ours.Users(), etcd.GetAllUsers()) || !equal(ours.Roles(), etcd.GetAllRoles()) {
				t.Fatalf("%v: %v %v; etcd: %v %v", r, ours.Users(), ours.Roles(), etcd.GetAllUsers(), etcd.GetAllRoles())
			}
			compareChecks(t, ours, etcd.store)
			if loaded, err := Load(ours.Enabled(), ours.Revision(), ours.Users(), ours.Roles()); err != nil || loaded.Sum() != ours.Sum() {
				t.Fatalf("%v: sum %x, loaded %+v, %v", r, ours.Sum(), loaded, err)
			}
		}
	})
}

func compareChecks(t *rapid.T, ours *State, etcd etcdauth.AuthStore) {
	revision := ours.Revision() - min(ours.Revision(), uint64(rapid.IntRange(0, 5).Draw(t, "how old")/4))
	i := Info{Username: genName().Draw(t, "user"), Revision: revision}
	their := &etcdauth.AuthInfo{Username: i.Username, Revision: i.Revision}
	key := genKey().Draw(t, "key")
	k, end := []byte(key), []byte(genEnd(t, key))
	for what, errs := range map[string][2]error{
		"put":    {ours.CheckPut(i, k), etcd.IsPutPermitted(their, k)},
		"range":  {ours.CheckRange(i, k, end), etcd.IsRangePermitted(their, k, end)},
		"delete": {ours.CheckDeleteRange(i, k, end), etcd.IsDeleteRangePermitted(their, k, end)},
		"admin":  {ours.CheckAdmin(i), etcd.IsAdminPermitted(their)},
	} {
		if text(errs[0]) != text(errs[1]) {
			t.Fatalf("%s of %q to %q as %v: %v; etcd: %v", what, k, end, i, errs[0], errs[1])
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func genName() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{"", "root", "root", "u", "v"})
}

func genRole() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{"", "root", "r", "s", "rs"})
}

// genRequest draws a request of auth, often one that makes sense.
func genRequest(t *rapid.T) *pb.InternalRaftRequest {
	name, role := genName().Draw(t, "name"), genRole().Draw(t, "role")
	switch rapid.IntRange(0, 22).Draw(t, "request") {
	case 0:
		return &pb.InternalRaftRequest{AuthEnable: &pb.AuthEnableRequest{}}
	case 1:
		return &pb.InternalRaftRequest{AuthDisable: &pb.AuthDisableRequest{}}
	case 2:
		return &pb.InternalRaftRequest{AuthUserDelete: &pb.AuthUserDeleteRequest{Name: name}}
	case 3:
		return &pb.InternalRaftRequest{AuthUserChangePassword: &pb.AuthUserChangePasswordRequest{Name: name,
			HashedPassword: rapid.SampledFrom([]string{"", "AAAA", "!"}).Draw(t, "hash")}}
	case 4:
		return &pb.InternalRaftRequest{AuthUserRevokeRole: &pb.AuthUserRevokeRoleRequest{Name: name, Role: role}}
	case 5:
		return &pb.InternalRaftRequest{AuthRoleDelete: &pb.AuthRoleDeleteRequest{Role: role}}
	case 6:
		key := genKey().Draw(t, "key")
		return &pb.InternalRaftRequest{AuthRoleRevokePermission: &pb.AuthRoleRevokePermissionRequest{Role: role, Key: []byte(key), RangeEnd: []byte(genEnd(t, key))}}
	case 7:
		return &pb.InternalRaftRequest{AuthUserGet: &pb.AuthUserGetRequest{Name: name}}
	case 8:
		return &pb.InternalRaftRequest{AuthRoleGet: &pb.AuthRoleGetRequest{Role: role}}
	case 9:
		return &pb.InternalRaftRequest{AuthUserList: &pb.AuthUserListRequest{}}
	case 10:
		return &pb.InternalRaftRequest{AuthRoleList: &pb.AuthRoleListRequest{}}
	case 11:
		return &pb.InternalRaftRequest{Authenticate: &pb.InternalAuthenticateRequest{Name: name, SimpleToken: "t"}}
	case 12:
		return &pb.InternalRaftRequest{AuthRoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: role}}
	case 13, 14:
		return &pb.InternalRaftRequest{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: role}}
	case 15, 16:
		r := &pb.AuthUserAddRequest{Name: name, HashedPassword: rapid.SampledFrom([]string{"", "AAAA", "!"}).Draw(t, "hash")}
		if rapid.Bool().Draw(t, "options") {
			r.Options = &authpb.UserAddOptions{NoPassword: rapid.Bool().Draw(t, "no password")}
		}
		return &pb.InternalRaftRequest{AuthUserAdd: r}
	case 17, 18, 19:
		return &pb.InternalRaftRequest{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: name, Role: role}}
	}
	key := rapid.OneOf(genKey(), rapid.Just("")).Draw(t, "key")
	end := genEnd(t, key)
	if rapid.IntRange(0, 9).Draw(t, "inverted") == 0 {
		end = "a"
	}
	typ := rapid.SampledFrom([]authpb.Permission_Type{reads, writes, both}).Draw(t, "type")
	return &pb.InternalRaftRequest{AuthRoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: role,
		Perm: &authpb.Permission{PermType: typ, Key: []byte(key), RangeEnd: []byte(end)}}}
}

func sameAnswer(ours any, theirs proto.Message) bool {
	switch a := ours.(type) {
	case Status:
		return proto.Equal(&pb.AuthStatusResponse{Enabled: a.Enabled, AuthRevision: a.Revision}, theirs)
	case Permissions:
		return proto.Equal(&pb.AuthRoleGetResponse{Perm: a}, theirs)
	case Names:
		switch r := theirs.(type) {
		case *pb.AuthUserGetResponse:
			return slices.Equal(a, r.Roles)
		case *pb.AuthUserListResponse:
			return slices.Equal(a, r.Users)
		case *pb.AuthRoleListResponse:
			return slices.Equal(a, r.Roles)
		}
		return false
	}
	return ours == nil
}

// peer is etcd's auth store over rows in memory, behind the checks of its applier.
type peer struct {
	rows
	store etcdauth.AuthStore
}

func newPeer(t *rapid.T) *peer {
	tokens, err := etcdauth.NewTokenProvider(zap.NewNop(), "simple", func(uint64) <-chan struct{} { return nil }, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{rows: rows{users: map[string]*authpb.User{}, roles: map[string]*authpb.Role{}}}
	p.store = etcdauth.NewAuthStore(zap.NewNop(), &p.rows, tokens, 4)
	return p
}

// apply is what etcd's applier does with a request of somebody.
func (p *peer) apply(i Info, r *pb.InternalRaftRequest) (resp proto.Message, err error) {
	s := p.store
	admin := s.IsAdminPermitted(&etcdauth.AuthInfo{Username: i.Username, Revision: i.Revision})
	switch {
	case r.Authenticate != nil:
		p.tokens++
		ctx := context.WithValue(context.Background(), etcdauth.AuthenticateParamIndex{}, p.tokens)
		ctx = context.WithValue(ctx, etcdauth.AuthenticateParamSimpleTokenPrefix{}, r.Authenticate.SimpleToken)
		return s.Authenticate(ctx, r.Authenticate.Name, "")
	case r.AuthUserGet != nil:
		if admin != nil && r.AuthUserGet.Name != i.Username {
			return nil, admin
		}
		return s.UserGet(r.AuthUserGet)
	case r.AuthRoleGet != nil:
		if admin != nil && !s.HasRole(i.Username, r.AuthRoleGet.Role) {
			return nil, admin
		}
		return s.RoleGet(r.AuthRoleGet)
	case admin != nil:
		return nil, admin
	case r.AuthEnable != nil:
		return nil, s.AuthEnable()
	case r.AuthDisable != nil:
		s.AuthDisable()
		return nil, nil
	case r.AuthUserAdd != nil:
		return s.UserAdd(proto.Clone(r.AuthUserAdd).(*pb.AuthUserAddRequest))
	case r.AuthUserDelete != nil:
		return s.UserDelete(r.AuthUserDelete)
	case r.AuthUserChangePassword != nil:
		return s.UserChangePassword(r.AuthUserChangePassword)
	case r.AuthUserGrantRole != nil:
		return s.UserGrantRole(r.AuthUserGrantRole)
	case r.AuthUserRevokeRole != nil:
		return s.UserRevokeRole(r.AuthUserRevokeRole)
	case r.AuthUserList != nil:
		return s.UserList(r.AuthUserList)
	case r.AuthRoleList != nil:
		return s.RoleList(r.AuthRoleList)
	case r.AuthRoleAdd != nil:
		return s.RoleAdd(r.AuthRoleAdd)
	case r.AuthRoleDelete != nil:
		return s.RoleDelete(r.AuthRoleDelete)
	case r.AuthRoleGrantPermission != nil:
		return s.RoleGrantPermission(r.AuthRoleGrantPermission)
	case r.AuthRoleRevokePermission != nil:
		return s.RoleRevokePermission(r.AuthRoleRevokePermission)
	}
	return nil, errors.New("unknown request")
}

// rows is etcd's auth backend in memory: what is read and written are copies, as of a file.
type rows struct {
	enabled  bool
	revision uint64
	users    map[string]*authpb.User
	roles    map[string]*authpb.Role
	tokens   uint64
}

func (r *rows) CreateAuthBuckets()            {}
func (r *rows) ForceCommit()                  {}
func (r *rows) ReadTx() etcdauth.AuthReadTx   { return r }
func (r *rows) BatchTx() etcdauth.AuthBatchTx { return r }
func (r *rows) Lock()                         {}
func (r *rows) Unlock()                       {}
func (r *rows) RLock()                        {}
func (r *rows) RUnlock()                      {}

func (r *rows) GetUser(name string) *authpb.User       { return get(r.users, name) }
func (r *rows) GetRole(name string) *authpb.Role       { return get(r.roles, name) }
func (r *rows) GetAllUsers() []*authpb.User            { return getAll(r.users) }
func (r *rows) GetAllRoles() []*authpb.Role            { return getAll(r.roles) }
func (r *rows) UnsafeGetUser(name string) *authpb.User { return get(r.users, name) }
func (r *rows) UnsafeGetRole(name string) *authpb.Role { return get(r.roles, name) }
func (r *rows) UnsafeGetAllUsers() []*authpb.User      { return getAll(r.users) }
func (r *rows) UnsafeGetAllRoles() []*authpb.Role      { return getAll(r.roles) }
func (r *rows) UnsafeReadAuthEnabled() bool            { return r.enabled }
func (r *rows) UnsafeReadAuthRevision() uint64         { return r.revision }
func (r *rows) UnsafeSaveAuthEnabled(on bool)          { r.enabled = on }
func (r *rows) UnsafeSaveAuthRevision(rev uint64)      { r.revision = rev }
func (r *rows) UnsafePutUser(u *authpb.User)           { r.users[string(u.Name)] = proto.Clone(u).(*authpb.User) }
func (r *rows) UnsafePutRole(x *authpb.Role)           { r.roles[string(x.Name)] = proto.Clone(x).(*authpb.Role) }
func (r *rows) UnsafeDeleteUser(name string)           { delete(r.users, name) }
func (r *rows) UnsafeDeleteRole(name string)           { delete(r.roles, name) }

func get[T proto.Message](m map[string]T, name string) (none T) {
	if x, ok := m[name]; ok {
		return proto.Clone(x).(T)
	}
	return none
}

func getAll[T proto.Message](m map[string]T) (all []T) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, get(m, name))
	}
	return all
}
