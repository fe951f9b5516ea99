package auth

import "go.etcd.io/etcd/api/v3/authpb"

// Delta is what turns the rows of one state into those of another. The zero
// Delta is nothing.
type Delta struct {
	// Revision is the auth revision to write; 0: it is the same.
	Revision uint64
	// EnabledChanged tells that Enabled is to be written.
	EnabledChanged, Enabled bool

	UsersPut                   []*authpb.User // by name; not to be modified
	RolesPut                   []*authpb.Role // by name; not to be modified
	UsersDeleted, RolesDeleted []string       // by name
}

// Since answers what has changed since an earlier state. It compares pointers: O(n)
// in users and roles, and nothing if it is the same state.
func (s *State) Since(old *State) Delta {
	if s == old {
		return Delta{}
	}
	d := Delta{Enabled: s.enabled, EnabledChanged: s.enabled != old.enabled}
	if s.revision != old.revision {
		d.Revision = s.revision
	}
	var users []*user
	var roles []*role
	users, d.UsersDeleted = diff(old.users, s.users)
	roles, d.RolesDeleted = diff(old.roles, s.roles)
	for _, u := range users {
		d.UsersPut = append(d.UsersPut, u.pb)
	}
	for _, r := range roles {
		d.RolesPut = append(d.RolesPut, r.pb)
	}
	return d
}

// diff answers which items of now are others than before, and the names of those
// that are gone.
func diff[T interface {
	item
	comparable
}](before, now []T) (put []T, gone []string) {
	for len(before) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(before) > 0 && before[0].name() < now[0].name():
			gone, before = append(gone, before[0].name()), before[1:]
		case len(before) == 0 || now[0].name() < before[0].name():
			put, now = append(put, now[0]), now[1:]
		default:
			if before[0] != now[0] {
				put = append(put, now[0])
			}
			before, now = before[1:], now[1:]
		}
	}
	return put, gone
}
