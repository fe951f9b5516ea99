package auth

import (
	"bytes"
	"slices"
	"sort"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (s *State) roleAdd(r *pb.AuthRoleAddRequest) (*State, error) {
	if r.Name == "" {
		return nil, ErrRoleEmpty
	}
	if s.role(r.Name) != nil {
		return nil, ErrRoleAlreadyExist
	}
	next := s.changed()
	next.putRole(&authpb.Role{Name: []byte(r.Name)})
	return next, nil
}

// roleDelete deletes a role, and takes it from all users.
func (s *State) roleDelete(r *pb.AuthRoleDeleteRequest) (*State, error) {
	if s.enabled && r.Role == root {
		return nil, ErrInvalidAuthMgmt
	}
	if s.role(r.Role) == nil {
		return nil, ErrRoleNotFound
	}
	next := s.changed()
	roles, diff := without(s.roles, r.Role)
	next.roles, next.sum = roles, s.sum+diff
	next.users = slices.Clone(s.users)
	for i, u := range next.users {
		if changed := u.withoutRole(r.Role); changed != nil {
			next.users[i] = newUser(changed)
			next.sum += next.users[i].hash - u.hash
		}
	}
	return next, nil
}

// validRange tells whether a permission names keys.
func validRange(key, end []byte) bool {
	return len(key) != 0 && (len(end) == 0 || openEnded(end) || bytes.Compare(key, end) < 0)
}

func (s *State) roleGrantPermission(r *pb.AuthRoleGrantPermissionRequest) (*State, error) {
	p := r.Perm
	if p == nil {
		return nil, ErrPermissionNotGiven
	}
	if !validRange(p.Key, p.RangeEnd) {
		return nil, ErrInvalidAuthMgmt
	}
	old := s.role(r.Name)
	if old == nil {
		return nil, ErrRoleNotFound
	}
	next := s.changed()
	next.putRole(&authpb.Role{Name: old.pb.Name, KeyPermission: grant(old.pb.KeyPermission, p)})
	return next, nil
}

// grant answers the permissions with one more, which replaces one for the same
// range. As etcd looks for that only at the first permission for the key, there
// can be two for one range.
func grant(all []*authpb.Permission, p *authpb.Permission) []*authpb.Permission {
	p = &authpb.Permission{PermType: p.PermType, Key: bytes.Clone(p.Key), RangeEnd: bytes.Clone(p.RangeEnd)}
	all = slices.Clone(all)
	i := sort.Search(len(all), func(i int) bool { return bytes.Compare(all[i].Key, p.Key) >= 0 })
	if i < len(all) && sameRange(all[i], p.Key, p.RangeEnd) {
		all[i] = p
		return all
	}
	for i < len(all) && bytes.Equal(all[i].Key, p.Key) {
		i++
	}
	return slices.Insert(all, i, p)
}

func sameRange(p *authpb.Permission, key, end []byte) bool {
	return bytes.Equal(p.Key, key) && bytes.Equal(p.RangeEnd, end)
}

func (s *State) roleRevokePermission(r *pb.AuthRoleRevokePermissionRequest) (*State, error) {
	old := s.role(r.Role)
	if old == nil {
		return nil, ErrRoleNotFound
	}
	left := slices.DeleteFunc(slices.Clone(old.pb.KeyPermission), func(p *authpb.Permission) bool { return sameRange(p, r.Key, r.RangeEnd) })
	if len(left) == len(old.pb.KeyPermission) {
		return nil, ErrPermissionNotGranted
	}
	next := s.changed()
	next.putRole(&authpb.Role{Name: old.pb.Name, KeyPermission: left})
	return next, nil
}
