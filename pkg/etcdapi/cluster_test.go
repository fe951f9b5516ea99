package etcdapi

import (
	"errors"
	"io"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
)

func wantStatus(t *testing.T, what string, got, want error) {
	t.Helper()
	if status.Convert(got).String() != status.Convert(want).String() {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestChangeMembers: what a member answers about changes that its store knows; the rest is in test/conformance.
func TestChangeMembers(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	cluster := pb.NewClusterClient(ts.conn(t))
	add := mustOf[*pb.MemberAddResponse](t)(cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:2", "http://127.0.0.1:1"}, IsLearner: true}))
	ts.wantHeader(t, "member add", add.Header, 0)
	if m := add.Member; m.ID == 0 || !m.IsLearner || m.Name != "" || len(m.PeerURLs) != 2 || m.PeerURLs[0] != "http://127.0.0.1:1" || len(add.Members) != 2 {
		t.Errorf("member add: %v", add)
	}
	_, err := cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"127.0.0.1:2"}})
	wantStatus(t, "add without a scheme", err, rpctypes.ErrGRPCMemberBadURLs)
	_, err = cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: add.Member.ID})
	wantStatus(t, "update to nothing", err, rpctypes.ErrGRPCMemberBadURLs)
	_, err = cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: add.Member.ID})
	wantStatus(t, "promote", err, rpctypes.ErrGRPCLearnerNotReady)
	_, err = cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 1})
	wantStatus(t, "remove nobody", err, rpctypes.ErrGRPCMemberNotFound)
	update := mustOf[*pb.MemberUpdateResponse](t)(cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: add.Member.ID, PeerURLs: []string{"http://127.0.0.1:3"}}))
	ts.wantHeader(t, "member update", update.Header, 0)
	remove := mustOf[*pb.MemberRemoveResponse](t)(cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: add.Member.ID}))
	ts.wantHeader(t, "member remove", remove.Header, 0)
	if len(update.Members) != 2 || len(remove.Members) != 1 {
		t.Errorf("update: %v; remove: %v", update, remove)
	}
}

// TestCorruptMemberAnswersNoReads: the others' data are right, and clients find them there.
func TestCorruptMemberAnswersNoReads(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	cc := ts.conn(t)
	kv, maintenance := pb.NewKVClient(cc), pb.NewMaintenanceClient(cc)
	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_CORRUPT, MemberID: ts.store.MemberID() + 1}
	mustOf[*pb.AlarmResponse](t)(maintenance.Alarm(ctx, alarm))
	if _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")}); err != nil {
		t.Errorf("read while another member is corrupt: %v", err)
	}
	open, err := pb.NewWatchClient(cc).Watch(ctx)
	if err == nil {
		err = open.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}})
	}
	if err == nil {
		_, err = open.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	alarm.MemberID--
	mustOf[*pb.AlarmResponse](t)(maintenance.Alarm(ctx, alarm))
	for _, serializable := range []bool{false, true} {
		_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Serializable: serializable})
		wantStatus(t, "read", err, rpctypes.ErrGRPCCorrupt)
	}
	_, err = open.Recv()
	wantStatus(t, "a watch that was open", err, rpctypes.ErrGRPCCorrupt)
	watch, err := pb.NewWatchClient(cc).Watch(ctx)
	if err == nil {
		_, err = watch.Recv()
	}
	if errors.Is(err, io.EOF) {
		t.Fatal("the watch ended without a reason")
	}
	wantStatus(t, "watch", err, rpctypes.ErrGRPCCorrupt)
	if _, err := maintenance.Status(ctx, &pb.StatusRequest{}); err != nil {
		t.Errorf("status: %v", err)
	}
	if list := mustOf[*pb.AlarmResponse](t)(maintenance.Alarm(ctx, &pb.AlarmRequest{})); len(list.Alarms) != 2 {
		t.Errorf("alarms: %v", list)
	}
	alarm.Action = pb.AlarmRequest_DEACTIVATE
	mustOf[*pb.AlarmResponse](t)(maintenance.Alarm(ctx, alarm))
	if _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")}); err != nil {
		t.Errorf("read after the alarm: %v", err)
	}
}

// TestLearnerAnswers: nothing but its status and reads that may be stale, as etcd.
func TestLearnerAnswers(t *testing.T) {
	for _, c := range []struct {
		request any
		want    bool
	}{
		{&pb.StatusRequest{}, true},
		{&rangeRequest{RangeRequest: pb.RangeRequest{Serializable: true}}, true},
		{&rangeRequest{}, false},
		{&txnRequest{}, false},
		{&pb.MemberListRequest{}, false},
		{&pb.HashKVRequest{}, false},
		{&pb.AlarmRequest{}, false},
	} {
		if learnerAnswers(c.request) != c.want {
			t.Errorf("%T: answered by a learner: %t", c.request, !c.want)
		}
	}
}
