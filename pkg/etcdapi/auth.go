package etcdapi

import (
	"context"
	"encoding/base64"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/pkg/auth"
	"github.com/kubeshim/shim/pkg/auth/password"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// authServer answers etcdserverpb.Auth. Changes go through the log, and are checked where they are applied. What only reads, which etcd
// sends through the log as well, is answered from a linearizable View.
type authServer struct {
	*Server
	pb.UnsafeAuthServer
}

// change sends a command through the log and answers with its header.
func (s authServer) change(ctx context.Context, kind mvcc.Kind, w *write) (*pb.ResponseHeader, error) {
	if err := s.propose(ctx, kind, w, nil); err != nil {
		return nil, err
	}
	return s.headerAt(w.res.Revision), nil
}

// AuthEnable turns auth on.
func (s authServer) AuthEnable(ctx context.Context, r *pb.AuthEnableRequest) (*pb.AuthEnableResponse, error) {
	h, err := s.change(ctx, mvcc.KindAuthEnable, &write{raft: pb.InternalRaftRequest{AuthEnable: r}})
	return &pb.AuthEnableResponse{Header: h}, err
}

// AuthDisable turns auth off.
func (s authServer) AuthDisable(ctx context.Context, r *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	h, err := s.change(ctx, mvcc.KindAuthDisable, &write{raft: pb.InternalRaftRequest{AuthDisable: r}})
	return &pb.AuthDisableResponse{Header: h}, err
}

// AuthStatus tells everybody whether auth is on; a token has to be a good one nevertheless.
func (s authServer) AuthStatus(ctx context.Context, _ *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	c, err := s.reader(ctx)
	if err != nil {
		return nil, err
	}
	st := c.view.Auth()
	return &pb.AuthStatusResponse{Header: s.headerAt(c.view.Revision()), Enabled: st.Enabled(), AuthRevision: st.Revision()}, nil
}

// reader is who asks for something that a linearizable View tells.
func (s authServer) reader(ctx context.Context) (caller, error) {
	v, err := s.readView(ctx, false)
	if err != nil {
		return caller{}, err
	}
	c, err := s.identify(ctx, v)
	return c, toGRPC(err)
}

// Authenticate checks a name and a password and answers with a token. The password is checked here, before the log: if users or roles
// have changed when the login is applied, it is checked again. The log never has a password.
func (s authServer) Authenticate(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	v, err := s.readView(ctx, false)
	if err != nil {
		return nil, err
	}
	for {
		checked := v.Auth().Revision()
		if err := s.checkPassword(ctx, v.Auth(), r); err != nil {
			return nil, toGRPC(err)
		}
		w := write{raft: pb.InternalRaftRequest{Authenticate: &pb.InternalAuthenticateRequest{Name: r.Name, SimpleToken: s.opts.Tokens.Prefix()}}}
		if err := s.proposeUnsigned(ctx, mvcc.KindAuthenticate, &w, nil); err != nil {
			return nil, err
		}
		login := w.res.Response.(*mvcc.AuthenticateResult)
		token, err := s.opts.Tokens.Issue(r.Name, login.AuthRevision, login.Token)
		if err != nil {
			return nil, toGRPC(err)
		}
		if login.AuthRevision == checked {
			return &pb.AuthenticateResponse{Header: s.headerAt(w.res.Revision), Token: token}, nil
		}
		v = s.store.View()
	}
}

func (s authServer) checkPassword(ctx context.Context, st *auth.State, r *pb.AuthenticateRequest) error {
	if !st.Enabled() {
		return auth.ErrAuthNotEnabled
	}
	u := st.User(r.Name)
	switch {
	case u == nil:
		return auth.ErrAuthFailed
	case u.GetOptions().GetNoPassword():
		return auth.ErrNoPasswordUser
	}
	err := s.passwords.Check(ctx, u.GetPassword(), r.Password)
	if err == password.ErrMismatch {
		return auth.ErrAuthFailed
	}
	return err
}

// hash makes of a password what goes into the log. Who may not change users is refused here already: hashing is dear.
func (s authServer) hash(ctx context.Context, plain string) (string, error) {
	if err := password.Validate(plain); err != nil {
		return "", toGRPC(err)
	}
	if s.store.View().Auth().Enabled() {
		c, err := s.reader(ctx)
		if err != nil {
			return "", err
		}
		if err := c.view.Auth().CheckAdmin(c.Info); err != nil {
			return "", toGRPC(err)
		}
	}
	h, err := s.passwords.Hash(ctx, plain)
	if err != nil {
		return "", toGRPC(err)
	}
	return base64.StdEncoding.EncodeToString(h), nil
}

// UserAdd adds a user; one without a password comes by its certificate.
func (s authServer) UserAdd(ctx context.Context, r *pb.AuthUserAddRequest) (*pb.AuthUserAddResponse, error) {
	if !r.GetOptions().GetNoPassword() {
		var err error
		if r.HashedPassword, err = s.hash(ctx, r.Password); err != nil {
			return nil, err
		}
	}
	r.Password = "" // one of a user that is to have none stays out of the log, too
	h, err := s.change(ctx, mvcc.KindUserAdd, &write{raft: pb.InternalRaftRequest{AuthUserAdd: r}})
	return &pb.AuthUserAddResponse{Header: h}, err
}

// UserGet tells the roles of a user, to itself as well.
func (s authServer) UserGet(ctx context.Context, r *pb.AuthUserGetRequest) (*pb.AuthUserGetResponse, error) {
	c, err := s.reader(ctx)
	if err != nil {
		return nil, err
	}
	roles, err := c.view.Auth().UserGet(c.Info, r.Name)
	if err != nil {
		return nil, toGRPC(err)
	}
	return &pb.AuthUserGetResponse{Header: s.headerAt(c.view.Revision()), Roles: roles}, nil
}

// UserList lists the names of all users.
func (s authServer) UserList(ctx context.Context, _ *pb.AuthUserListRequest) (*pb.AuthUserListResponse, error) {
	c, err := s.reader(ctx)
	if err != nil {
		return nil, err
	}
	names, err := c.view.Auth().UserList(c.Info)
	if err != nil {
		return nil, toGRPC(err)
	}
	return &pb.AuthUserListResponse{Header: s.headerAt(c.view.Revision()), Users: names}, nil
}

// UserDelete removes a user.
func (s authServer) UserDelete(ctx context.Context, r *pb.AuthUserDeleteRequest) (*pb.AuthUserDeleteResponse, error) {
	h, err := s.change(ctx, mvcc.KindUserDelete, &write{raft: pb.InternalRaftRequest{AuthUserDelete: r}})
	return &pb.AuthUserDeleteResponse{Header: h}, err
}

// UserChangePassword gives a user another password. A client may also send the hash of one, as etcd takes it.
func (s authServer) UserChangePassword(ctx context.Context, r *pb.AuthUserChangePasswordRequest) (*pb.AuthUserChangePasswordResponse, error) {
	if r.Password != "" {
		var err error
		if r.HashedPassword, err = s.hash(ctx, r.Password); err != nil {
			return nil, err
		}
		r.Password = ""
	}
	h, err := s.change(ctx, mvcc.KindUserChangePassword, &write{raft: pb.InternalRaftRequest{AuthUserChangePassword: r}})
	return &pb.AuthUserChangePasswordResponse{Header: h}, err
}

// UserGrantRole gives a user a role.
func (s authServer) UserGrantRole(ctx context.Context, r *pb.AuthUserGrantRoleRequest) (*pb.AuthUserGrantRoleResponse, error) {
	h, err := s.change(ctx, mvcc.KindUserGrantRole, &write{raft: pb.InternalRaftRequest{AuthUserGrantRole: r}})
	return &pb.AuthUserGrantRoleResponse{Header: h}, err
}

// UserRevokeRole takes a role from a user.
func (s authServer) UserRevokeRole(ctx context.Context, r *pb.AuthUserRevokeRoleRequest) (*pb.AuthUserRevokeRoleResponse, error) {
	h, err := s.change(ctx, mvcc.KindUserRevokeRole, &write{raft: pb.InternalRaftRequest{AuthUserRevokeRole: r}})
	return &pb.AuthUserRevokeRoleResponse{Header: h}, err
}

// RoleAdd adds a role.
func (s authServer) RoleAdd(ctx context.Context, r *pb.AuthRoleAddRequest) (*pb.AuthRoleAddResponse, error) {
	h, err := s.change(ctx, mvcc.KindRoleAdd, &write{raft: pb.InternalRaftRequest{AuthRoleAdd: r}})
	return &pb.AuthRoleAddResponse{Header: h}, err
}

// RoleGet tells the permissions of a role, also to who has it.
func (s authServer) RoleGet(ctx context.Context, r *pb.AuthRoleGetRequest) (*pb.AuthRoleGetResponse, error) {
	c, err := s.reader(ctx)
	if err != nil {
		return nil, err
	}
	permissions, err := c.view.Auth().RoleGet(c.Info, r.Role)
	if err != nil {
		return nil, toGRPC(err)
	}
	return &pb.AuthRoleGetResponse{Header: s.headerAt(c.view.Revision()), Perm: permissions}, nil
}

// RoleList lists the names of all roles.
func (s authServer) RoleList(ctx context.Context, _ *pb.AuthRoleListRequest) (*pb.AuthRoleListResponse, error) {
	c, err := s.reader(ctx)
	if err != nil {
		return nil, err
	}
	names, err := c.view.Auth().RoleList(c.Info)
	if err != nil {
		return nil, toGRPC(err)
	}
	return &pb.AuthRoleListResponse{Header: s.headerAt(c.view.Revision()), Roles: names}, nil
}

// RoleDelete removes a role, also from its users.
func (s authServer) RoleDelete(ctx context.Context, r *pb.AuthRoleDeleteRequest) (*pb.AuthRoleDeleteResponse, error) {
	h, err := s.change(ctx, mvcc.KindRoleDelete, &write{raft: pb.InternalRaftRequest{AuthRoleDelete: r}})
	return &pb.AuthRoleDeleteResponse{Header: h}, err
}

// RoleGrantPermission lets a role read or write a range of keys.
func (s authServer) RoleGrantPermission(ctx context.Context, r *pb.AuthRoleGrantPermissionRequest) (*pb.AuthRoleGrantPermissionResponse, error) {
	h, err := s.change(ctx, mvcc.KindRoleGrantPermission, &write{raft: pb.InternalRaftRequest{AuthRoleGrantPermission: r}})
	return &pb.AuthRoleGrantPermissionResponse{Header: h}, err
}

// RoleRevokePermission takes it back.
func (s authServer) RoleRevokePermission(ctx context.Context, r *pb.AuthRoleRevokePermissionRequest) (*pb.AuthRoleRevokePermissionResponse, error) {
	h, err := s.change(ctx, mvcc.KindRoleRevokePermission, &write{raft: pb.InternalRaftRequest{AuthRoleRevokePermission: r}})
	return &pb.AuthRoleRevokePermissionResponse{Header: h}, err
}
