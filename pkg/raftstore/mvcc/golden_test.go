package mvcc

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestGolden runs the scripts in testdata. Commands, all of them with requests
// as protobuf text:
//
//	new                      an empty state
//	apply                    one request a line; answers and events
//	range                    a RangeRequest on the current view
//	check [max-ops=N]        a TxnRequest; what its shape check says
//	state                    live keys, leases with their keys, alarms
//	history from=R to=R      events of the history
//	compact-step budget=N    one step of removal
//	checkpoint [ok=false]    what a checkpoint writes
func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := New(Options{})
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "new":
				s = New(Options{})
				return ""
			case "apply":
				return goldenApply(t, s, d.Input)
			case "range":
				r := &pb.RangeRequest{}
				parseText(t, d.Input, r)
				res, err := s.Publish().Range(r)
				if err != nil {
					return err.Error() + "\n"
				}
				return renderRange(res) + "\n"
			case "check":
				r, ops := &pb.TxnRequest{}, 128
				d.MaybeScanArgs(t, "max-ops", &ops)
				parseText(t, d.Input, r)
				return fmt.Sprintln(CheckTxn(r, ops))
			case "state":
				return goldenState(s.Publish())
			case "history":
				var from, to int64
				d.ScanArgs(t, "from", &from)
				d.ScanArgs(t, "to", &to)
				text, err := historyText(&renderer{}, s.Publish(), from, to)
				if err != nil {
					return err.Error() + "\n"
				}
				return text + "\n"
			case "compact-step":
				var budget int
				d.ScanArgs(t, "budget", &budget)
				done := s.CompactStep(budget)
				return fmt.Sprintf("done=%v size=%d\n", done, s.Publish().Size())
			case "checkpoint":
				ok := true
				d.MaybeScanArgs(t, "ok", &ok)
				return goldenCheckpoint(s, ok)
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func parseText(t *testing.T, in string, m proto.Message) {
	t.Helper()
	if err := prototext.Unmarshal([]byte(in), m); err != nil {
		t.Fatalf("%s: %v", in, err)
	}
}

// goldenApply applies the requests, one a line; a line that is indented goes
// on with the one before.
func goldenApply(t *testing.T, s *State, in string) string {
	var out strings.Builder
	in = strings.ReplaceAll(in, "\n  ", " ")
	for line := range strings.Lines(in) {
		req := &pb.InternalRaftRequest{}
		parseText(t, line, req)
		res := s.Apply(Entry{Index: s.Index() + 1, Term: 1, Request: req})
		fmt.Fprintln(&out, render(res))
	}
	return out.String()
}

func goldenState(v *View) string {
	var out strings.Builder
	fmt.Fprintf(&out, "revision %d, compacted %d\n", v.Revision(), v.Compacted())
	res, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		return err.Error()
	}
	for _, x := range res.Versions {
		fmt.Fprintln(&out, renderVersion(x))
	}
	for _, l := range v.Leases() {
		fmt.Fprintf(&out, "lease %d ttl %d remaining %d keys %s\n", l.ID, l.TTL, l.Remaining, v.LeaseKeys(l.ID))
	}
	for _, a := range v.Alarms() {
		fmt.Fprintf(&out, "alarm %v of %d\n", a.Alarm, a.MemberID)
	}
	if a := v.Auth(); a.Revision() > 1 {
		fmt.Fprintf(&out, "auth %v at revision %d, users", a.Enabled(), a.Revision())
		for _, u := range a.Users() {
			fmt.Fprintf(&out, " %s%v", u.Name, u.Roles)
		}
		out.WriteString("\n")
	}
	if v.ClusterVersion() != "" || v.Downgrade().Enabled {
		fmt.Fprintf(&out, "cluster version %s, downgrade %+v\n", v.ClusterVersion(), v.Downgrade())
	}
	return out.String()
}

func goldenCheckpoint(s *State, ok bool) string {
	var out strings.Builder
	c := s.BeginCheckpoint()
	fmt.Fprintf(&out, "index %d, revision %d, compacted %d of %d, meta changed %v, empty %v\n",
		c.Index, c.View.Revision(), c.CompactFinished, c.CompactScheduled, c.MetaChanged, c.Empty())
	for v := range c.Puts() {
		fmt.Fprintf(&out, "put %d.%d %s\n", v.Mod(), v.Sub(), renderVersion(v))
	}
	for _, k := range c.Dead() {
		fmt.Fprintf(&out, "delete %d.%d tombstone=%v\n", k.Main, k.Sub, k.Tombstone)
	}
	for _, l := range c.LeasesPut() {
		fmt.Fprintf(&out, "put lease %+v\n", l)
	}
	for _, id := range c.LeasesDeleted() {
		fmt.Fprintf(&out, "delete lease %d\n", id)
	}
	d := c.Auth()
	for _, u := range d.UsersPut {
		fmt.Fprintf(&out, "put user %s%v\n", u.Name, u.Roles)
	}
	for _, r := range d.RolesPut {
		fmt.Fprintf(&out, "put role %s with %d permissions\n", r.Name, len(r.KeyPermission))
	}
	if d.Revision > 0 || d.EnabledChanged {
		fmt.Fprintf(&out, "auth revision %d, deleted %s %s, enabled changed %v to %v\n", d.Revision, d.UsersDeleted, d.RolesDeleted, d.EnabledChanged, d.Enabled)
	}
	s.EndCheckpoint(c, ok)
	return out.String()
}
