package auth

import "go.etcd.io/etcd/api/v3/authpb"

// CheckPut tells whether i may write a key. Errors: ErrUserEmpty without an auth
// revision, ErrAuthOldRevision, ErrPermissionDenied; never one while auth is
// disabled.
func (s *State) CheckPut(i Info, key []byte) error {
	return s.check(i, authpb.Permission_WRITE, key, nil)
}

// CheckRange tells whether i may read all keys of a range, as the range end of a
// range or of a watch says it. Errors as CheckPut.
func (s *State) CheckRange(i Info, key, end []byte) error {
	return s.check(i, authpb.Permission_READ, key, end)
}

// CheckDeleteRange tells whether i may delete all keys of a range. Errors as
// CheckPut.
func (s *State) CheckDeleteRange(i Info, key, end []byte) error {
	return s.check(i, authpb.Permission_WRITE, key, end)
}

// CheckAdmin tells whether i has the role root, at whatever auth revision it was
// authenticated. Errors: ErrUserEmpty without a name, ErrUserNotFound,
// ErrPermissionDenied; never one while auth is disabled.
func (s *State) CheckAdmin(i Info) error {
	if !s.enabled {
		return nil
	}
	if i.Username == "" {
		return ErrUserEmpty
	}
	u := s.user(i.Username)
	if u == nil {
		return ErrUserNotFound
	}
	if !u.root {
		return ErrPermissionDenied
	}
	return nil
}

func (s *State) check(i Info, typ authpb.Permission_Type, key, end []byte) error {
	if !s.enabled {
		return nil
	}
	if i.Revision == 0 {
		return ErrUserEmpty
	}
	if i.Revision < s.revision {
		return ErrAuthOldRevision
	}
	u := s.user(i.Username)
	if u == nil {
		return ErrPermissionDenied
	}
	if u.root || s.granted(u, typ, key, end) {
		return nil
	}
	return ErrPermissionDenied
}

// granted tells whether the roles of a user together give a range.
func (s *State) granted(u *user, typ authpb.Permission_Type, key, end []byte) bool {
	var few [8]ranges
	several := few[:0]
	for _, name := range u.pb.Roles {
		r := s.role(name)
		if r == nil {
			continue // it may be granted without being there: root
		}
		if typ == authpb.Permission_READ {
			several = append(several, r.read)
		} else {
			several = append(several, r.write)
		}
	}
	return cover(several, key, end)
}
