package auth

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/authpb"
)

// root is the user that auth cannot be enabled without, and the role that may
// do everything.
const root = "root"

// revisionFirst is the auth revision of a store whose users and roles were never
// changed.
const revisionFirst = 1

// Info is who asks, authenticated at which auth revision. The zero Info is
// nobody.
type Info struct {
	Username string
	Revision uint64
}

// State is users, roles, and whether they count. It never changes. Its methods
// may be called by any goroutine.
type State struct {
	enabled  bool
	revision uint64
	users    []*user // by name
	roles    []*role // by name
	sum      uint64  // of the rows of users and roles, in any order
}

// user is a user and what follows from it. It never changes.
type user struct {
	pb   *authpb.User
	key  string // its name
	root bool   // it has the role root
	hash uint64
}

// role is a role and what follows from it. It never changes.
type role struct {
	pb          *authpb.Role
	key         string // its name
	read, write ranges
	hash        uint64
}

func (u *user) name() string { return u.key }
func (u *user) sum() uint64  { return u.hash }
func (r *role) name() string { return r.key }
func (r *role) sum() uint64  { return r.hash }

// New answers a state without users and roles, with auth disabled.
func New() *State { return &State{revision: revisionFirst} }

// Load rebuilds the state that rows hold, of ours or of etcd's, in any order.
// The messages must not be changed any more. revision 0 is that of a store that
// has none yet. The error names a row that cannot be.
func Load(enabled bool, revision uint64, users []*authpb.User, roles []*authpb.Role) (*State, error) {
	s := &State{enabled: enabled, revision: max(revision, revisionFirst)}
	for _, u := range users {
		s.users = append(s.users, newUser(u))
	}
	for _, r := range roles {
		s.roles = append(s.roles, newRole(r))
	}
	var err error
	if s.users, err = sorted("user", s.users); err != nil {
		return nil, err
	}
	if s.roles, err = sorted("role", s.roles); err != nil {
		return nil, err
	}
	s.sum = sumOf(s.users) + sumOf(s.roles)
	return s, nil
}

// Enabled tells whether callers are asked who they are.
func (s *State) Enabled() bool { return s.enabled }

// Revision is the auth revision, at least 1.
func (s *State) Revision() uint64 { return s.revision }

// Sum is a hash of all users and roles. States with equal ones have equal sums.
func (s *State) Sum() uint64 { return s.sum }

// User answers a user with its password hash, or nil. Not to be modified.
func (s *State) User(name string) *authpb.User {
	if u := s.user(name); u != nil {
		return u.pb
	}
	return nil
}

// Users answers all users by name. They are not to be modified.
func (s *State) Users() []*authpb.User {
	all := make([]*authpb.User, len(s.users))
	for i, u := range s.users {
		all[i] = u.pb
	}
	return all
}

// Role answers a role with the permissions it was given, or nil. Not to be
// modified.
func (s *State) Role(name string) *authpb.Role {
	if r := s.role(name); r != nil {
		return r.pb
	}
	return nil
}

// Roles answers all roles by name. They are not to be modified.
func (s *State) Roles() []*authpb.Role {
	all := make([]*authpb.Role, len(s.roles))
	for i, r := range s.roles {
		all[i] = r.pb
	}
	return all
}

func (s *State) user(name string) *user {
	if i, ok := find(s.users, name); ok {
		return s.users[i]
	}
	return nil
}

func (s *State) role(name string) *role {
	if i, ok := find(s.roles, name); ok {
		return s.roles[i]
	}
	return nil
}

func newUser(u *authpb.User) *user {
	_, isRoot := slices.BinarySearch(u.Roles, root)
	return &user{pb: u, key: string(u.Name), root: isRoot, hash: hashOf('u', u)}
}

func newRole(r *authpb.Role) *role {
	return &role{pb: r, key: string(r.Name), hash: hashOf('r', r),
		read:  merge(r.KeyPermission, authpb.Permission_READ),
		write: merge(r.KeyPermission, authpb.Permission_WRITE)}
}

// hashOf is the hash of a row. kind tells users from roles.
func hashOf(kind byte, m proto.Message) uint64 {
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{kind}, m)
	if err != nil {
		panic(fmt.Sprintf("auth: marshal %v: %v", m.ProtoReflect().Descriptor().Name(), err)) // a name that is no UTF-8, which no request can bring
	}
	return xxhash.Sum64(b)
}

// item is a user or a role.
type item interface {
	name() string
	sum() uint64
}

func find[T item](list []T, name string) (int, bool) {
	return slices.BinarySearchFunc(list, name, func(x T, name string) int { return cmp.Compare(x.name(), name) })
}

// with answers the list with x in it, in the place of the one of its name, and
// by how much that changes the sum.
func with[T item](list []T, x T) ([]T, uint64) {
	i, ok := find(list, x.name())
	if !ok {
		return slices.Insert(slices.Clone(list), i, x), x.sum()
	}
	diff := x.sum() - list[i].sum()
	list = slices.Clone(list)
	list[i] = x
	return list, diff
}

// without is the reverse of with.
func without[T item](list []T, name string) ([]T, uint64) {
	i, ok := find(list, name)
	if !ok {
		return list, 0
	}
	return slices.Delete(slices.Clone(list), i, i+1), -list[i].sum()
}

func sumOf[T item](list []T) (sum uint64) {
	for _, x := range list {
		sum += x.sum()
	}
	return sum
}

// sorted puts a loaded list in the order of names.
func sorted[T item](kind string, list []T) ([]T, error) {
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(a.name(), b.name()) })
	for i, x := range list {
		if x.name() == "" {
			return nil, fmt.Errorf("a %s has no name", kind)
		}
		if i > 0 && list[i-1].name() == x.name() {
			return nil, fmt.Errorf("%s %q is there twice", kind, x.name())
		}
	}
	return list, nil
}

// changed is the state that s becomes by a change: of the next auth revision.
func (s *State) changed() *State {
	next := *s
	next.revision++
	return &next
}

func (s *State) putUser(u *authpb.User) {
	list, diff := with(s.users, newUser(u))
	s.users, s.sum = list, s.sum+diff
}

func (s *State) putRole(r *authpb.Role) {
	list, diff := with(s.roles, newRole(r))
	s.roles, s.sum = list, s.sum+diff
}
