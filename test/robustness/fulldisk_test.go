package robustness

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

// A disk with room for two segments of the log, a spare one, and a checkpoint of what is in them.
const (
	smallDiskBytes = 320 << 20
	bigValueBytes  = 256 << 10
	// littleRoomBytes is less than a segment.
	littleRoomBytes = 40 << 20
)

// smallDisk mounts a tmpfs.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", smallDiskBytes)); err != nil {
		t.Fatalf("mount a tmpfs on %s: %v; this test needs to be root, and mount(2) to be allowed", dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fillDisk writes to a file until there is no room.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// bookkeeper writes and remembers what was acknowledged.
type bookkeeper struct {
	t     *testing.T
	kv    pb.KVClient
	lease pb.LeaseClient
	acked map[string]string // "" : deleted
}

func newBookkeeper(t *testing.T, conn *grpc.ClientConn) *bookkeeper {
	return &bookkeeper{t: t, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn), acked: make(map[string]string)}
}

func patiently() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func (b *bookkeeper) put(key, value string, lease int64) error {
	ctx, cancel := patiently()
	defer cancel()
	_, err := b.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value), Lease: lease}, grpc.WaitForReady(true))
	if err == nil {
		b.acked[key] = value
	}
	return err
}

func (b *bookkeeper) mustPut(key, value string) {
	b.t.Helper()
	if err := b.put(key, value, 0); err != nil {
		b.t.Fatalf("put %s: %v", key, err)
	}
}

func (b *bookkeeper) delete(key string) {
	b.t.Helper()
	ctx, cancel := patiently()
	defer cancel()
	if _, err := b.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(key)}); err != nil {
		b.t.Errorf("delete %s: %v", key, err)
		return
	}
	b.acked[key] = ""
}

// verify compares all that is there with all that was acknowledged.
func (b *bookkeeper) verify(when string) {
	b.t.Helper()
	var resp *pb.RangeResponse
	surely(b.t, "read "+when, func(ctx context.Context) (err error) {
		resp, err = b.kv.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, grpc.WaitForReady(true))
		return err
	})
	want := maps.Clone(b.acked)
	maps.DeleteFunc(want, func(_, v string) bool { return v == "" })
	for _, kv := range resp.Kvs {
		if v, ok := want[string(kv.Key)]; !ok || v != string(kv.Value) {
			b.t.Errorf("%s: %s is %.20q..., acknowledged was %.20q...", when, kv.Key, kv.Value, v)
		}
		delete(want, string(kv.Key))
	}
	for k := range want {
		b.t.Errorf("%s: %s is missing", when, k)
	}
}

// refused: a put fails, and says why.
func (b *bookkeeper) refused(when string) {
	b.t.Helper()
	if err := b.put("refused", "x", 0); !errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace) {
		b.t.Errorf("put %s: %v, and it should say that there is no space", when, err)
	}
}

// TestFullDisk: on a disk that is really full writes fail with NOSPACE, reads and what frees space go on, nothing acknowledged is lost
// over kill -9, and once there is room, writes work again without a restart.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	s := startServer(t, filepath.Join(disk, "data"))
	b := newBookkeeper(t, s.dial())
	ctx, cancel := patiently()
	defer cancel()
	grant, err := b.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 3600})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.put("leased", "x", grant.ID); err != nil {
		t.Fatal(err)
	}
	b.mustPut("small", "x")
	await(t, "the spare segment", func() bool { _, err := os.Stat(filepath.Join(disk, "data/member/wal/spare")); return err == nil })
	ballast := filepath.Join(disk, "ballast")
	fillDisk(t, ballast)
	full := b.fill("big/", 1000, 1000)
	b.verify("on the full disk")
	b.refused("on the full disk")

	// What frees space, and reads.
	b.delete("small")
	revoke := &pb.LeaseRevokeRequest{ID: grant.ID}
	if _, err := b.lease.LeaseRevoke(ctx, revoke); err != nil {
		t.Errorf("revoke a lease on the full disk: %v", err)
	}
	b.acked["leased"] = ""
	rev := b.revision()
	if _, err := b.kv.Compact(ctx, &pb.CompactionRequest{Revision: rev}); err != nil {
		t.Errorf("compact on the full disk: %v", err)
	}
	b.verify("after deletes on the full disk")

	// A restart does not change that.
	s.kill()
	s.start()
	b.verify("after kill -9 on the full disk")
	b.refused("after kill -9 on the full disk")
	if code := s.signal(unix.SIGTERM); code != 0 {
		t.Errorf("exit code %d on the full disk", code)
	}
	s.start()
	b.verify("after a stop on the full disk")
	b.refused("after a stop on the full disk")
	b.delete(fmt.Sprintf("big/%d", full/2))

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	await(t, "writes to work again", func() bool { return b.put("again", "x", 0) == nil })
	b.mustPut("big/again", strings.Repeat("z", bigValueBytes))
	s.kill()
	s.start()
	b.verify("after there was room again")
	if code := s.signal(unix.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestFullDiskIsFreedByACheckpoint: the log is full to its last byte, so that not even a delete fits in. There comes room for a
// checkpoint, and not for one more segment: those that the checkpoint gives back are room for all the rest.
func TestFullDiskIsFreedByACheckpoint(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	s := startServer(t, filepath.Join(disk, "data"))
	b := newBookkeeper(t, s.dial())
	b.mustPut("small", "x")
	await(t, "the spare segment", func() bool { _, err := os.Stat(filepath.Join(disk, "data/member/wal/spare")); return err == nil })
	ballast := filepath.Join(disk, "ballast")
	fillDisk(t, ballast)
	b.fill("big/", 1000, littleRoomBytes/2/bigValueBytes)
	ctx, cancel := patiently()
	defer cancel()
	if _, err := b.kv.Compact(ctx, &pb.CompactionRequest{Revision: b.revision()}); err != nil {
		t.Fatalf("compact on the full disk: %v", err)
	}
	b.fillWithDeletes()
	b.verify("on the disk without room for a delete")
	s.kill()
	s.start()
	b.verify("after kill -9 without room for a delete")
	b.fillWithDeletes()
	if code := s.signal(unix.SIGTERM); code != 0 {
		t.Errorf("exit code %d without room for a delete", code)
	}
	s.start()
	b.verify("after a stop without room for a delete")
	b.fillWithDeletes()

	f, err := os.OpenFile(ballast, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(info.Size() - littleRoomBytes); err != nil {
		t.Fatal(err)
	}
	await(t, "writes to work again", func() bool { return b.put("again", "x", 0) == nil })
	b.verify("after there was a little room")
	if code := s.signal(unix.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.start()
	b.verify("after a stop")
}

// fillWithDeletes deletes what is not there, until even that is refused for want of space.
func (b *bookkeeper) fillWithDeletes() {
	b.t.Helper()
	for i := range 1000 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second) // the last one waits for room
		_, err := b.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: fmt.Appendf(nil, "none/%0*d", bigValueBytes*3, i)})
		cancel()
		if errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace) {
			return
		}
	}
	b.t.Fatal("the log does not become full")
}

// fill puts until there is no space, and says how many puts were done, on so many keys.
func (b *bookkeeper) fill(prefix string, most, keys int) int {
	b.t.Helper()
	for i := range most {
		err := b.put(fmt.Sprintf("%s%d", prefix, i%keys), fmt.Sprintf("%0*d", bigValueBytes, i), 0)
		if err == nil {
			continue
		}
		if !errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace) {
			b.t.Fatalf("put %d on a disk that becomes full: %v", i, err)
		}
		return i
	}
	b.t.Fatal("the disk does not become full")
	return 0
}

func (b *bookkeeper) revision() int64 {
	b.t.Helper()
	var resp *pb.RangeResponse
	surely(b.t, "read the revision", func(ctx context.Context) (err error) {
		resp, err = b.kv.Range(ctx, &pb.RangeRequest{Key: []byte("x")})
		return err
	})
	return resp.Header.Revision
}
