package etcdapi

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestStatus(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, "k", "v"))
	st := mustOf[*clientv3.StatusResponse](t)(ts.cli.Status(ctx, ts.addr))
	ts.wantHeader(t, "status", st.Header, 2)
	if st.Version != "3.7.3" || st.StorageVersion != "3.7.0" {
		t.Errorf("version %q, storage version %q", st.Version, st.StorageVersion)
	}
	if st.Leader != st.Header.MemberId || st.RaftTerm != st.Header.RaftTerm || st.IsLearner {
		t.Errorf("leader: %v", st)
	}
	if st.DbSize <= 0 || st.DbSizeInUse <= 0 || st.DbSizeQuota != 2<<30 {
		t.Errorf("sizes: %v", st)
	}
	if st.RaftIndex == 0 || st.RaftAppliedIndex == 0 || len(st.Errors) != 0 || st.DowngradeInfo.GetEnabled() {
		t.Errorf("status: %v", st)
	}
}

func TestAlarms(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	mc := pb.NewMaintenanceClient(ts.conn(t))
	const id = 0 // of nobody in particular; a member lowers its own when there is room
	alarm := func(a pb.AlarmRequest_AlarmAction, typ pb.AlarmType) []*pb.AlarmMember {
		t.Helper()
		return mustOf[*pb.AlarmResponse](t)(mc.Alarm(ctx, &pb.AlarmRequest{Action: a, MemberID: id, Alarm: typ})).Alarms
	}
	if got := alarm(pb.AlarmRequest_GET, pb.AlarmType_NONE); len(got) != 0 {
		t.Fatalf("alarms at first: %v", got)
	}
	if got := alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_NOSPACE); len(got) != 1 || got[0].MemberID != id {
		t.Fatalf("activate: %v", got)
	}
	for typ, want := range map[pb.AlarmType]int{pb.AlarmType_NONE: 1, pb.AlarmType_NOSPACE: 1, pb.AlarmType_CORRUPT: 0} {
		if got := alarm(pb.AlarmRequest_GET, typ); len(got) != want {
			t.Errorf("alarms of type %v: %v", typ, got)
		}
	}
	if _, err := ts.cli.Put(ctx, "k", "v"); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("put without space: %v", err)
	}
	if _, err := ts.cli.Delete(ctx, "k"); err != nil {
		t.Errorf("delete without space: %v", err)
	}
	st := mustOf[*clientv3.StatusResponse](t)(ts.cli.Status(ctx, ts.addr))
	if len(st.Errors) != 1 {
		t.Errorf("status errors: %q", st.Errors)
	}
	if got := alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NOSPACE); len(got) != 1 {
		t.Errorf("deactivate: %v", got)
	}
	mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, "k", "v"))
}

func TestHashes(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	for range 3 {
		mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, "k", "v"))
	}
	now := mustOf[*clientv3.HashKVResponse](t)(ts.cli.HashKV(ctx, ts.addr, 0))
	past := mustOf[*clientv3.HashKVResponse](t)(ts.cli.HashKV(ctx, ts.addr, 3))
	ts.wantHeader(t, "hashkv", past.Header, 4)
	if now.HashRevision != 4 || past.HashRevision != 3 || now.Hash == past.Hash || now.CompactRevision != -1 {
		t.Errorf("now %v, past %v", now, past)
	}
	if _, err := ts.cli.HashKV(ctx, ts.addr, 9); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("hash of the future: %v", err)
	}
	mc := pb.NewMaintenanceClient(ts.conn(t))
	h := mustOf[*pb.HashResponse](t)(mc.Hash(ctx, &pb.HashRequest{}))
	ts.wantHeader(t, "hash", h.Header, 4)
	if h.Hash == 0 {
		t.Error("hash is 0")
	}
	if _, err := mc.Defragment(ctx, &pb.DefragmentRequest{}); err != nil {
		t.Errorf("defragment: %v", err)
	}
}

// TestSnapshot checks that the stream is a bbolt file with the data, followed by its sum.
func TestSnapshot(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	for range 100 {
		mustOf[*clientv3.PutResponse](t)(ts.cli.Put(ctx, "k", "v"))
	}
	mc := pb.NewMaintenanceClient(ts.conn(t))
	stream := mustOf[pb.Maintenance_SnapshotClient](t)(mc.Snapshot(ctx, &pb.SnapshotRequest{}))
	var all []byte
	remaining := uint64(0)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if m.Version != "3.7.0" {
			t.Fatalf("version %q", m.Version)
		}
		if len(all) > 0 && m.RemainingBytes+uint64(len(m.Blob)) != remaining && m.RemainingBytes != 0 {
			t.Fatalf("%d bytes, %d remain of %d", len(m.Blob), m.RemainingBytes, remaining)
		}
		remaining = m.RemainingBytes
		all = append(all, m.Blob...)
	}
	file, sum := all[:len(all)-sha256.Size], all[len(all)-sha256.Size:]
	if sha256.Sum256(file) != [sha256.Size]byte(sum) || len(file)%512 != 0 {
		t.Fatal("sum differs")
	}
	path := filepath.Join(t.TempDir(), "snap.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	db := mustOf[*bbolt.DB](t)(bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true}))
	defer db.Close()
	if err := db.View(func(tx *bbolt.Tx) error {
		if n := tx.Bucket([]byte("key")).Stats().KeyN; n != 100 {
			t.Errorf("%d rows in the snapshot", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestMoveLeaderAndDowngrade(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	mc := pb.NewMaintenanceClient(ts.conn(t))
	if _, err := mc.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: ts.store.MemberID()}); err != nil {
		t.Errorf("to itself: %v", err)
	}
	_, transferee := mc.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 4711})
	down := func(a pb.DowngradeRequest_DowngradeAction, v string) error {
		_, err := mc.Downgrade(ctx, &pb.DowngradeRequest{Action: a, Version: v})
		return err
	}
	for _, c := range []struct{ got, want error }{
		{transferee, rpctypes.ErrGRPCBadLeaderTransferee},
		{down(pb.DowngradeRequest_VALIDATE, "3.6"), nil},
		{down(pb.DowngradeRequest_VALIDATE, "3.6.0"), nil},
		{down(pb.DowngradeRequest_VALIDATE, "3.5"), rpctypes.ErrGRPCInvalidDowngradeTargetVersion},
		{down(pb.DowngradeRequest_VALIDATE, "old"), rpctypes.ErrGRPCWrongDowngradeVersionFormat},
		{down(pb.DowngradeRequest_ENABLE, "3.5"), rpctypes.ErrGRPCInvalidDowngradeTargetVersion},
		{down(pb.DowngradeRequest_CANCEL, ""), nil},
		{down(pb.DowngradeRequest_ENABLE, "3.6"), nil},
		{down(pb.DowngradeRequest_ENABLE, "3.6"), rpctypes.ErrGRPCDowngradeInProcess},
		{down(pb.DowngradeRequest_CANCEL, ""), nil},
		{down(pb.DowngradeRequest_VALIDATE, "3.6"), nil},
	} {
		if status.Convert(c.got).String() != status.Convert(c.want).String() {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
	resp := mustOf[*pb.DowngradeResponse](t)(mc.Downgrade(ctx, &pb.DowngradeRequest{Version: "3.6"}))
	if resp.Version != "3.7" {
		t.Errorf("cluster version %q", resp.Version)
	}
}

func TestClusterAuthHealth(t *testing.T) {
	ts, ctx := startServer(t, Options{}), within(t)
	cc := ts.conn(t)
	cluster, auth := pb.NewClusterClient(cc), pb.NewAuthClient(cc)
	for _, linearizable := range []bool{false, true} {
		list := mustOf[*pb.MemberListResponse](t)(cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: linearizable}))
		ts.wantHeader(t, "member list", list.Header, 0)
		if len(list.Members) != 1 || list.Members[0].ID != ts.store.MemberID() || len(list.Members[0].PeerURLs) == 0 {
			t.Errorf("members: %v", list)
		}
	}
	if st := mustOf[*pb.AuthStatusResponse](t)(auth.AuthStatus(ctx, &pb.AuthStatusRequest{})); st.Enabled || st.AuthRevision != 1 {
		t.Errorf("auth status: %v", st)
	}
	if _, err := auth.AuthDisable(ctx, &pb.AuthDisableRequest{}); err != nil {
		t.Errorf("auth disable: %v", err)
	}
	_, authenticate := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "root", Password: "x"})
	if status.Convert(authenticate).String() != status.Convert(rpctypes.ErrGRPCAuthNotEnabled).String() {
		t.Errorf("authenticate: %v", authenticate)
	}
	h := mustOf[*healthpb.HealthCheckResponse](t)(healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{}))
	if h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v", h)
	}
}
