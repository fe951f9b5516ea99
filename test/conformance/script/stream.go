package script

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cockroachdb/datadriven"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// rangeStream prints one answer per request: where the server cuts chunks is
// its own business, that only the last one carries more than keys is not.
func (s *Session) rangeStream(d *datadriven.TestData) (string, error) {
	var b strings.Builder
	texts := requests(d.Input)
	for i, text := range texts {
		b.WriteString(number(len(texts), i))
		req := &pb.RangeRequest{}
		if err := s.parse(text, 1, req); err != nil {
			return "", err
		}
		ctx, cancel := s.context(d)
		stream, err := pb.NewKVClient(s.conn).RangeStream(ctx, req)
		if err != nil {
			cancel()
			return "", err
		}
		chunks, err := collect(stream)
		cancel()
		if d.HasArg("chunks") {
			for _, c := range chunks {
				b.WriteString(s.printer().message("chunk", c))
			}
		} else if len(chunks) > 0 {
			b.WriteString(s.merged(chunks))
		}
		if err != nil {
			b.WriteString(fault(err))
		}
	}
	return b.String(), nil
}

func collect(stream grpc.ServerStreamingClient[pb.RangeStreamResponse]) ([]*pb.RangeResponse, error) {
	var chunks []*pb.RangeResponse
	for {
		resp, err := stream.Recv()
		if err == io.EOF {
			return chunks, nil
		}
		if err != nil {
			return chunks, err
		}
		chunks = append(chunks, resp.RangeResponse)
	}
}

func (s *Session) merged(chunks []*pb.RangeResponse) string {
	var b strings.Builder
	last := chunks[len(chunks)-1]
	all := proto.Clone(last).(*pb.RangeResponse)
	all.Kvs = nil
	for i, c := range chunks {
		all.Kvs = append(all.Kvs, c.Kvs...)
		if c != last && (c.Header != nil || c.More || c.Count != 0 || len(c.Kvs) == 0) {
			fmt.Fprintf(&b, "chunk %d of %d is not plain keys\n", i+1, len(chunks))
		}
	}
	return s.printer().message("", all) + b.String()
}

// keepAlive sends every line on one stream and waits for its answer.
func (s *Session) keepAlive(d *datadriven.TestData) (string, error) {
	ctx, cancel := s.context(d)
	defer cancel()
	stream, err := pb.NewLeaseClient(s.conn).LeaseKeepAlive(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	texts := requests(d.Input)
	for i, text := range texts {
		b.WriteString(number(len(texts), i))
		req := &pb.LeaseKeepAliveRequest{}
		if err := s.parse(text, 1, req); err != nil {
			return "", err
		}
		if err := stream.Send(req); err != nil && err != io.EOF {
			return "", err
		}
		resp, err := stream.Recv()
		if err != nil {
			return b.String() + fault(err), nil
		}
		b.WriteString(s.printer().message("", resp))
	}
	if err := stream.CloseSend(); err != nil {
		return "", err
	}
	if _, err := stream.Recv(); err != io.EOF {
		b.WriteString("after the end: " + fault(err))
	}
	return b.String(), nil
}

// Backup writes the snapshot stream, checksum included, to path; the checksum
// is verified first.
func (s *Session) Backup(path string) error { return s.backup(&datadriven.TestData{}, path) }

func (s *Session) backup(d *datadriven.TestData, path string) error {
	ctx, cancel := s.context(d)
	defer cancel()
	stream, err := pb.NewMaintenanceClient(s.conn).Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return err
	}
	var all []byte
	for {
		resp, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		all = append(all, resp.Blob...)
	}
	if len(all) < sha256.Size {
		return errors.New("backup is shorter than its checksum")
	}
	body, sum := all[:len(all)-sha256.Size], all[len(all)-sha256.Size:]
	if have := sha256.Sum256(body); string(have[:]) != string(sum) {
		return errors.New("backup does not have its checksum")
	}
	return os.WriteFile(path, all, 0o600)
}

// bytesCodec sends and receives messages as they are.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// raw sends bytes that need not be a message. Only the code is printed: the
// text comes from the protobuf library, which varies it on purpose.
func (s *Session) raw(d *datadriven.TestData) (string, error) {
	if len(d.CmdArgs) != 1 {
		return "", errors.New("want one method")
	}
	var b strings.Builder
	texts := requests(d.Input)
	for i, text := range texts {
		b.WriteString(number(len(texts), i))
		req, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			return "", err
		}
		var resp []byte
		ctx, cancel := s.context(d)
		err = s.conn.Invoke(ctx, d.CmdArgs[0].Key, &req, &resp, grpc.ForceCodecV2(bytesCodec{}))
		cancel()
		b.WriteString(status.Code(err).String() + "\n")
	}
	return b.String(), nil
}
