package etcdapi

import (
	"crypto/sha256"
	"fmt"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Snapshot streams the database file and then its SHA-256, which restore checks.
// Each message says how many bytes of the file are still to come.
func (s maintenanceServer) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	if err := s.requireAdmin(stream.Context()); err != nil {
		return err
	}
	size, version, file, err := s.store.Backup(stream.Context())
	if err != nil {
		return toGRPC(err)
	}
	defer file.Close()
	sum := sha256.New()
	buf := make([]byte, snapshotChunkBytes)
	for left := size; left > 0; {
		chunk := buf[:min(left, int64(len(buf)))]
		if _, err := io.ReadFull(file, chunk); err != nil {
			return toGRPC(fmt.Errorf("read backup: %w", err))
		}
		left -= int64(len(chunk))
		sum.Write(chunk)
		// The message is encoded before Send returns, so the buffer can be used again.
		if err := stream.Send(&pb.SnapshotResponse{RemainingBytes: uint64(left), Blob: chunk, Version: version}); err != nil {
			return err
		}
	}
	return stream.Send(&pb.SnapshotResponse{Blob: sum.Sum(nil), Version: version})
}
