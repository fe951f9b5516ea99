package auth

import (
	"slices"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Status answers AuthStatus.
type Status struct {
	Enabled  bool
	Revision uint64
}

// Names answers UserGet (the roles of the user), UserList and RoleList. Not to
// be modified.
type Names []string

// Permissions answers RoleGet. Not to be modified.
type Permissions []*authpb.Permission

// Apply does what a request of auth says, as i, who is checked. It answers the
// state after it, which is s itself if nothing has changed, and a Status, Names
// or Permissions, or nil for what only changes the state and for Authenticate.
// The error is one of this package; ErrNotAuth, if it is another request.
func (s *State) Apply(i Info, r *pb.InternalRaftRequest) (next *State, answer any, err error) {
	switch {
	case r.Authenticate != nil:
		return s, nil, s.CheckAuthenticate(r.Authenticate.Name)
	case r.AuthStatus != nil:
		return s, Status{s.enabled, s.revision}, nil
	case r.AuthUserGet != nil:
		names, err := s.UserGet(i, r.AuthUserGet.Name)
		return s, names, err
	case r.AuthRoleGet != nil:
		permissions, err := s.RoleGet(i, r.AuthRoleGet.Role)
		return s, permissions, err
	case r.AuthUserList != nil:
		names, err := s.UserList(i)
		return s, names, err
	case r.AuthRoleList != nil:
		names, err := s.RoleList(i)
		return s, names, err
	}
	if err := s.CheckAdmin(i); err != nil {
		return s, nil, err
	}
	if next, err = s.change(r); err != nil {
		next = s
	}
	return next, nil, err
}

// change does what an administrator asks for.
func (s *State) change(r *pb.InternalRaftRequest) (*State, error) {
	switch {
	case r.AuthEnable != nil:
		return s.enable()
	case r.AuthDisable != nil:
		return s.disable(), nil
	case r.AuthUserAdd != nil:
		return s.userAdd(r.AuthUserAdd)
	case r.AuthUserDelete != nil:
		return s.userDelete(r.AuthUserDelete)
	case r.AuthUserChangePassword != nil:
		return s.userChangePassword(r.AuthUserChangePassword)
	case r.AuthUserGrantRole != nil:
		return s.userGrantRole(r.AuthUserGrantRole)
	case r.AuthUserRevokeRole != nil:
		return s.userRevokeRole(r.AuthUserRevokeRole)
	case r.AuthRoleAdd != nil:
		return s.roleAdd(r.AuthRoleAdd)
	case r.AuthRoleGrantPermission != nil:
		return s.roleGrantPermission(r.AuthRoleGrantPermission)
	case r.AuthRoleRevokePermission != nil:
		return s.roleRevokePermission(r.AuthRoleRevokePermission)
	case r.AuthRoleDelete != nil:
		return s.roleDelete(r.AuthRoleDelete)
	}
	return nil, ErrNotAuth
}

// enable begins to ask callers who they are. It is no change of the revision.
func (s *State) enable() (*State, error) {
	if s.enabled {
		return s, nil
	}
	u := s.user(root)
	if u == nil {
		return nil, ErrRootUserNotExist
	}
	if !u.root {
		return nil, ErrRootRoleNotExist
	}
	next := *s
	next.enabled = true
	return &next, nil
}

func (s *State) disable() *State {
	if !s.enabled {
		return s
	}
	next := s.changed()
	next.enabled = false
	return next
}

// CheckAuthenticate tells whether a user whose password was found right may have
// a token. Errors: ErrAuthNotEnabled, ErrAuthFailed.
func (s *State) CheckAuthenticate(name string) error {
	if !s.enabled {
		return ErrAuthNotEnabled
	}
	if u := s.user(name); u == nil || u.pb.GetOptions().GetNoPassword() {
		return ErrAuthFailed
	}
	return nil
}

// UserGet answers the roles of a user, to an administrator and to the user.
func (s *State) UserGet(i Info, name string) (Names, error) {
	if err := s.CheckAdmin(i); err != nil && name != i.Username {
		return nil, err
	}
	u := s.user(name)
	if u == nil {
		return nil, ErrUserNotFound
	}
	return u.pb.Roles, nil
}

// RoleGet answers the permissions of a role, to an administrator and to who has
// it. Those of the role root are all there are.
func (s *State) RoleGet(i Info, name string) (Permissions, error) {
	if err := s.CheckAdmin(i); err != nil && !s.hasRole(i.Username, name) {
		return nil, err
	}
	r := s.role(name)
	switch {
	case r == nil:
		return nil, ErrRoleNotFound
	case name == root:
		return Permissions{{PermType: authpb.Permission_READWRITE, Key: []byte{}, RangeEnd: []byte{0}}}, nil
	}
	return r.pb.KeyPermission, nil
}

// UserList answers the names of all users, to an administrator.
func (s *State) UserList(i Info) (Names, error) { return list(s, i, s.users) }

// RoleList answers the names of all roles, to an administrator.
func (s *State) RoleList(i Info) (Names, error) { return list(s, i, s.roles) }

func list[T item](s *State, i Info, items []T) (Names, error) {
	if err := s.CheckAdmin(i); err != nil {
		return nil, err
	}
	names := make(Names, len(items))
	for i, x := range items {
		names[i] = x.name()
	}
	return names, nil
}

func (s *State) hasRole(user, role string) bool {
	u := s.user(user)
	return u != nil && slices.Contains(u.pb.Roles, role)
}
