package backend

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/authpb"

	"github.com/kubeshim/shim/pkg/auth"
)

var (
	authOn  = []byte{1}
	authOff = []byte{0}
)

// authRows are the rows of the buckets of auth.
type authRows struct {
	enabled  bool
	revision uint64
	users    []*authpb.User
	roles    []*authpb.Role
}

// take notes a row, if it is of one of those buckets.
func (a *authRows) take(bucket, k, v []byte) (err error) {
	switch string(bucket) {
	case string(bucketAuth):
		switch string(k) {
		case string(authEnabled):
			a.enabled = bytes.Equal(v, authOn)
		case string(authRevision):
			a.revision, err = decodeUint64(v)
		}
	case string(bucketAuthUsers):
		u := &authpb.User{}
		err = takeNamed(k, v, u, u.GetName)
		a.users = append(a.users, u)
	case string(bucketAuthRoles):
		r := &authpb.Role{}
		err = takeNamed(k, v, r, r.GetName)
		a.roles = append(a.roles, r)
	}
	return err
}

// takeNamed decodes a row whose key is the name of what is in it.
func takeNamed(k, v []byte, m proto.Message, name func() []byte) error {
	if err := proto.Unmarshal(v, m); err != nil {
		return err
	}
	if !bytes.Equal(k, name()) {
		return fmt.Errorf("holds %q", name())
	}
	return nil
}

// auth writes what has changed of users and roles.
func (w *writer) auth(d auth.Delta) error {
	if d.EnabledChanged {
		on := authOff
		if d.Enabled {
			on = authOn
		}
		if err := w.put(bucketAuth, authEnabled, on); err != nil {
			return err
		}
	}
	if d.Revision != 0 {
		if err := w.put(bucketAuth, authRevision, binary.BigEndian.AppendUint64(nil, d.Revision)); err != nil {
			return err
		}
	}
	for _, u := range d.UsersPut {
		if err := w.putMessage(bucketAuthUsers, u.Name, u); err != nil {
			return err
		}
	}
	for _, r := range d.RolesPut {
		if err := w.putMessage(bucketAuthRoles, r.Name, r); err != nil {
			return err
		}
	}
	for _, name := range d.UsersDeleted {
		if err := w.drop(bucketAuthUsers, []byte(name)); err != nil {
			return err
		}
	}
	for _, name := range d.RolesDeleted {
		if err := w.drop(bucketAuthRoles, []byte(name)); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) putMessage(bucket, key []byte, m proto.Message) error {
	row, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("marshal row %q: %w", key, err)
	}
	return w.put(bucket, key, row)
}

// describeUser leaves the hash of the password out.
func describeUser(v []byte) string {
	u := &authpb.User{}
	if err := proto.Unmarshal(v, u); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%q roles=%q password=%v", u.Name, u.Roles, len(u.Password) > 0)
}

func describeRole(v []byte) string {
	r := &authpb.Role{}
	if err := proto.Unmarshal(v, r); err != nil {
		return err.Error()
	}
	s := fmt.Sprintf("%q", r.Name)
	for _, p := range r.KeyPermission {
		s += fmt.Sprintf(" %v %q %q", p.PermType, p.Key, p.RangeEnd)
	}
	return s
}
