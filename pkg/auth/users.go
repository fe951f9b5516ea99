package auth

import (
	"encoding/base64"
	"slices"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (s *State) userAdd(r *pb.AuthUserAddRequest) (*State, error) {
	if r.Name == "" {
		return nil, ErrUserEmpty
	}
	if s.user(r.Name) != nil {
		return nil, ErrUserAlreadyExist
	}
	u := &authpb.User{Name: []byte(r.Name), Options: &authpb.UserAddOptions{}}
	if r.Options != nil {
		proto.Merge(u.Options, r.Options)
	}
	if !u.Options.NoPassword {
		var err error
		if u.Password, err = password(r.Password, r.HashedPassword); err != nil {
			return nil, err
		}
	}
	next := s.changed()
	next.putUser(u)
	return next, nil
}

// password is the bcrypt hash that a request brings.
func password(clear, hashed string) ([]byte, error) {
	if clear != "" && hashed == "" {
		return nil, ErrNoPasswordUser
	}
	b, err := base64.StdEncoding.DecodeString(hashed)
	if err != nil {
		return nil, ErrNoPasswordUser
	}
	return b, nil
}

func (s *State) userDelete(r *pb.AuthUserDeleteRequest) (*State, error) {
	if s.enabled && r.Name == root {
		return nil, ErrInvalidAuthMgmt
	}
	if s.user(r.Name) == nil {
		return nil, ErrUserNotFound
	}
	next := s.changed()
	users, diff := without(s.users, r.Name)
	next.users, next.sum = users, s.sum+diff
	return next, nil
}

func (s *State) userChangePassword(r *pb.AuthUserChangePasswordRequest) (*State, error) {
	u := s.user(r.Name)
	if u == nil {
		return nil, ErrUserNotFound
	}
	changed := &authpb.User{Name: u.pb.Name, Roles: u.pb.Roles, Options: u.pb.Options}
	if !u.pb.GetOptions().GetNoPassword() {
		var err error
		if changed.Password, err = password(r.Password, r.HashedPassword); err != nil {
			return nil, err
		}
	}
	next := s.changed()
	next.putUser(changed)
	return next, nil
}

// withRoles is the user with other roles, which are sorted.
func (u *user) withRoles(roles []string) *authpb.User {
	return &authpb.User{Name: u.pb.Name, Password: u.pb.Password, Options: u.pb.Options, Roles: roles}
}

// withoutRole is the user without a role, or nil if it has not got it.
func (u *user) withoutRole(role string) *authpb.User {
	if !slices.Contains(u.pb.Roles, role) {
		return nil
	}
	return u.withRoles(slices.DeleteFunc(slices.Clone(u.pb.Roles), func(r string) bool { return r == role }))
}

func (s *State) userGrantRole(r *pb.AuthUserGrantRoleRequest) (*State, error) {
	u := s.user(r.User)
	if u == nil {
		return nil, ErrUserNotFound
	}
	if r.Role != root && s.role(r.Role) == nil {
		return nil, ErrRoleNotFound
	}
	i, ok := slices.BinarySearch(u.pb.Roles, r.Role)
	if ok {
		return s, nil
	}
	next := s.changed()
	next.putUser(u.withRoles(slices.Insert(slices.Clone(u.pb.Roles), i, r.Role)))
	return next, nil
}

func (s *State) userRevokeRole(r *pb.AuthUserRevokeRoleRequest) (*State, error) {
	if s.enabled && r.Name == root && r.Role == root {
		return nil, ErrInvalidAuthMgmt
	}
	u := s.user(r.Name)
	if u == nil {
		return nil, ErrUserNotFound
	}
	changed := u.withoutRole(r.Role)
	if changed == nil {
		return nil, ErrRoleNotGranted
	}
	next := s.changed()
	next.putUser(changed)
	return next, nil
}
