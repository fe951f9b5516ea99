package script

import (
	"context"
	"regexp"
	"strings"

	"github.com/cockroachdb/datadriven"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"
)

// authCalls are the methods of the Auth service.
var authCalls = map[string]call{
	"auth-enable":  {pb.Auth_AuthEnable_FullMethodName, message[pb.AuthEnableRequest](), message[pb.AuthEnableResponse]()},
	"auth-disable": {pb.Auth_AuthDisable_FullMethodName, message[pb.AuthDisableRequest](), message[pb.AuthDisableResponse]()},
	"auth-status":  {pb.Auth_AuthStatus_FullMethodName, message[pb.AuthStatusRequest](), message[pb.AuthStatusResponse]()},
	"login":        {pb.Auth_Authenticate_FullMethodName, message[pb.AuthenticateRequest](), message[pb.AuthenticateResponse]()},
	"user-add":     {pb.Auth_UserAdd_FullMethodName, message[pb.AuthUserAddRequest](), message[pb.AuthUserAddResponse]()},
	"user-get":     {pb.Auth_UserGet_FullMethodName, message[pb.AuthUserGetRequest](), message[pb.AuthUserGetResponse]()},
	"user-list":    {pb.Auth_UserList_FullMethodName, message[pb.AuthUserListRequest](), message[pb.AuthUserListResponse]()},
	"user-delete":  {pb.Auth_UserDelete_FullMethodName, message[pb.AuthUserDeleteRequest](), message[pb.AuthUserDeleteResponse]()},
	"user-passwd":  {pb.Auth_UserChangePassword_FullMethodName, message[pb.AuthUserChangePasswordRequest](), message[pb.AuthUserChangePasswordResponse]()},
	"user-grant":   {pb.Auth_UserGrantRole_FullMethodName, message[pb.AuthUserGrantRoleRequest](), message[pb.AuthUserGrantRoleResponse]()},
	"user-revoke":  {pb.Auth_UserRevokeRole_FullMethodName, message[pb.AuthUserRevokeRoleRequest](), message[pb.AuthUserRevokeRoleResponse]()},
	"role-add":     {pb.Auth_RoleAdd_FullMethodName, message[pb.AuthRoleAddRequest](), message[pb.AuthRoleAddResponse]()},
	"role-get":     {pb.Auth_RoleGet_FullMethodName, message[pb.AuthRoleGetRequest](), message[pb.AuthRoleGetResponse]()},
	"role-list":    {pb.Auth_RoleList_FullMethodName, message[pb.AuthRoleListRequest](), message[pb.AuthRoleListResponse]()},
	"role-delete":  {pb.Auth_RoleDelete_FullMethodName, message[pb.AuthRoleDeleteRequest](), message[pb.AuthRoleDeleteResponse]()},
	"role-grant":   {pb.Auth_RoleGrantPermission_FullMethodName, message[pb.AuthRoleGrantPermissionRequest](), message[pb.AuthRoleGrantPermissionResponse]()},
	"role-revoke":  {pb.Auth_RoleRevokePermission_FullMethodName, message[pb.AuthRoleRevokePermissionRequest](), message[pb.AuthRoleRevokePermissionResponse]()},
}

// outgoing is a context with the metadata that d asks for.
func (s *Session) outgoing(d *datadriven.TestData) context.Context {
	ctx := context.Background()
	if d.HasArg("leader") {
		ctx = metadata.AppendToOutgoingContext(ctx, "hasleader", "true")
	}
	if name, ok := option(d, "token"); ok {
		ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, s.token(name))
	}
	if name, ok := option(d, "bearer"); ok {
		ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameSwagger, "Bearer "+s.token(name))
	}
	if name, ok := option(d, "authorization"); ok {
		ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameSwagger, s.token(name))
	}
	if d.HasArg("gateway") {
		ctx = metadata.AppendToOutgoingContext(ctx, "grpcgateway-accept", "*/*")
	}
	return ctx
}

// token is the one of that name, or the name itself.
func (s *Session) token(name string) string {
	if t, ok := s.tokens[name]; ok {
		return t
	}
	return name
}

const tokenField = "etcdserverpb.AuthenticateResponse.token"

var tokenJSON = regexp.MustCompile(`"token":"([^"]*)"`)

var simpleToken = regexp.MustCompile(`^[a-zA-Z]{16}\.[1-9][0-9]*$`)

// tokenKind is what a token looks like.
func tokenKind(token string) string {
	switch {
	case simpleToken.MatchString(token):
		return "simple"
	case strings.Count(token, ".") == 2:
		return "jwt"
	}
	return quote([]byte(token))
}
