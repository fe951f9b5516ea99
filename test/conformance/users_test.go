package conformance

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestRandomUsers has users with changing roles, passwords and tokens ask etcd
// and shim for everything that permissions are about.
func TestRandomUsers(t *testing.T) {
	for _, seed := range seeds(1, 2) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			// Whether etcd lets a user read a range that ends before it begins depends on how it has balanced a tree.
			u := &users{pair: newPair(t, seed, arg("bcrypt-cost", "4"))}
			u.shapes = &shapes{generator: u.g, ordered: true}
			u.begin()
			for step := range *shapesFlag {
				if step%50 == 49 {
					u.login()
				}
				u.step(step)
			}
		})
	}
}

type users struct {
	*pair
	shapes *shapes
}

func arg(key string, values ...string) datadriven.CmdArg {
	return datadriven.CmdArg{Key: key, Vals: values}
}

func (u *users) begin() {
	for _, x := range [][2]string{
		{"user-add", `name:"root" password:"r"`}, {"role-add", `name:"root"`}, {"user-grant", `user:"root" role:"root"`},
		{"user-add", `name:"u" password:"u"`}, {"user-add", `name:"v" password:"v"`}, {"role-add", `name:"r"`}, {"role-add", `name:"s"`},
		{"user-grant", `user:"u" role:"r"`}, {"user-grant", `user:"v" role:"s"`},
		{"role-grant", `name:"r" perm{key:"a" range_end:"c" permType:READWRITE}`}, {"auth-enable", ""},
	} {
		u.both(x[0], x[1])
	}
	u.login()
}

func (u *users) login() {
	u.both("login", `name:"root" password:"r"`, arg("as", "troot"))
	u.both("login", `name:"u" password:"u"`, arg("as", "tu"))
	u.both("login", `name:"v" password:"v"`, arg("as", "tv"))
}

func (u *users) user() string { return pick(u.g, "root", "u", "v", "u", "v", "w", "") }
func (u *users) role() string { return pick(u.g, "root", "r", "s", "r", "s", "q", "") }

// caller is who asks: nobody, somebody with a bad token, or one of those who have logged in.
func (u *users) caller() []datadriven.CmdArg {
	switch u.g.r.IntN(12) {
	case 0:
		return []datadriven.CmdArg{arg("token", "bogus.7")}
	case 1:
		return nil
	}
	how := pick(u.g, "token", "token", "token", "token", "bearer", "authorization")
	return []datadriven.CmdArg{arg(how, pick(u.g, "troot", "tu", "tv", "tu", "tv", "told"))}
}

func (u *users) step(i int) {
	by := u.caller()
	switch n := u.g.r.IntN(100); {
	case n < 55:
		u.keys(n, by)
	case n < 60:
		name := fmt.Sprintf("w%d", i)
		u.both("watch-open", "", append([]datadriven.CmdArg{arg(name)}, by...)...)
		u.both("watch-send", fmt.Sprintf("create_request{%s start_revision:%d}", u.shapes.span(), pick(u.g, 0, -1, 1000000)), arg(name))
		u.both("watch-recv", "", arg(name))
	case n < 91:
		u.manage(n, by)
	case n < 95:
		u.both(pick(u.g, "status", "hashkv", "alarm", "members", "defrag", "auth-status"), "", by...)
	case n < 98:
		u.both(pick(u.g, "member-remove", "member-promote"), "ID:17", by...)
	default:
		u.both("auth-disable", "", by...)
		u.both("auth-enable", "")
		u.login()
	}
}

// keys asks for keys and leases.
func (u *users) keys(n int, by []datadriven.CmdArg) {
	g, lease := u.shapes, fmt.Sprintf("ID:%d", 1+u.g.r.IntN(4))
	switch {
	case n < 10:
		u.both("range", g.rangeRequest(), by...)
	case n < 20:
		u.both("put", g.put(true), by...)
	case n < 25:
		u.both("delete", g.span()+fmt.Sprintf(" prev_kv:%t", g.oneIn(2)), by...)
	case n < 40:
		u.both("txn", g.txn(2, kind(g.r.IntN(3))), by...)
	case n < 42:
		u.both("rangestream", g.rangeRequest(), by...)
	case n < 43:
		u.both("compact", fmt.Sprintf("revision:%d", max(1, g.revision-g.r.IntN(20))), by...)
	case n < 46:
		u.both("grant", lease+" TTL:10000", by...)
	case n < 48:
		u.both("revoke", lease, by...)
	case n < 50:
		u.both("keepalive", lease, by...)
	case n < 53:
		u.both("ttl", lease+fmt.Sprintf(" keys:%t", g.oneIn(2)), by...)
	default:
		u.both("leases", "", append(by, arg("sort"))...)
	}
}

// manage asks for users and roles, or changes them.
func (u *users) manage(n int, by []datadriven.CmdArg) {
	g := u.shapes
	switch {
	case n < 62:
		u.both("login", fmt.Sprintf(`name:"%s" password:"%s"`, u.user(), pick(u.g, "u", "v", "r", "", "x")), append(by, arg("as", "told"))...)
	case n < 64:
		u.both("user-add", fmt.Sprintf(`name:"%s" password:"%s" options{no_password:%t}`, pick(u.g, "w", "u", "v"), pick(u.g, "u", "v", "w", ""), g.oneIn(5)), by...)
	case n < 65:
		u.both("user-delete", fmt.Sprintf(`name:"%s"`, pick(u.g, "w", "w", "u", "root", "v")), by...)
	case n < 67:
		name := pick(u.g, "w", "u", "v")
		u.both("user-passwd", fmt.Sprintf(`name:"%s" password:"%s"`, name, pick(u.g, "w", name, name)), by...)
	case n < 71:
		u.both("user-grant", fmt.Sprintf(`user:"%s" role:"%s"`, u.user(), u.role()), by...)
	case n < 74:
		u.both("user-revoke", fmt.Sprintf(`name:"%s" role:"%s"`, u.user(), u.role()), by...)
	case n < 77:
		u.both("user-get", fmt.Sprintf(`name:"%s"`, u.user()), by...)
	case n < 80:
		u.both("role-get", fmt.Sprintf(`role:"%s"`, u.role()), by...)
	case n < 82:
		u.both(pick(u.g, "user-list", "role-list"), "", by...)
	case n < 84:
		u.both("role-add", fmt.Sprintf(`name:"%s"`, u.role()), by...)
	case n < 85:
		u.both("role-delete", fmt.Sprintf(`role:"%s"`, u.role()), by...)
	case n < 89:
		u.both("role-grant", fmt.Sprintf(`name:"%s" perm{%s permType:%d}`, u.role(), g.span(), pick(u.g, 0, 1, 2, 2, 3)), by...)
	default:
		u.both("role-revoke", fmt.Sprintf(`role:"%s" %s`, u.role(), g.span()), by...)
	}
}
