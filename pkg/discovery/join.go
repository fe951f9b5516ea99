package discovery

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Join writes this member into the discovery service and waits until the cluster is full. id is the ID of a member with its URLs
// and the token, self is its name=URL,...; the answer has the form of --initial-cluster. Errors are *JoinError.
func Join(ctx context.Context, o Options, id types.ID, self string) (string, error) {
	o.EnsureDefaults()
	cluster, err := join(ctx, &o, id, self)
	if err != nil {
		return "", &JoinError{Err: err}
	}
	o.OnEvent(Found{Cluster: cluster})
	return cluster, nil
}

func join(ctx context.Context, o *Options, id types.ID, self string) (string, error) {
	if err := o.Validate(); err != nil {
		return "", err
	}
	conn, err := o.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	token, err := o.login(ctx, conn)
	if err != nil {
		return "", err
	}
	s := &session{o: o, kv: pb.NewKVClient(conn), watch: pb.NewWatchClient(conn), key: memberKey(o.Token, id)}
	return s.join(withToken(ctx, token), self)
}

// session is one Join.
type session struct {
	o       *Options
	kv      pb.KVClient
	watch   pb.WatchClient
	key     string // of this member
	retries int    // in a row
}

func (s *session) join(ctx context.Context, self string) (string, error) {
	if _, err := s.read(ctx); err != nil {
		return "", err
	}
	if err := s.register(ctx, self); err != nil {
		return "", err
	}
	found := -1
	for {
		r, err := s.read(ctx)
		if err != nil {
			return "", err
		}
		if r.full() {
			return r.initialCluster()
		}
		if found != len(r.members) {
			found = len(r.members)
			s.o.OnEvent(Waiting{Size: r.size, Found: found})
		}
		s.awaitChange(ctx, r.revision)
	}
}

// read is the state of the token, or an error when this member has no place in it.
func (s *session) read(ctx context.Context) (registry, error) {
	for {
		r, err := s.tryRead(ctx)
		if err == nil && !r.hasRoom(s.key) {
			err = ErrFullCluster
		}
		switch {
		case err == nil:
			s.retries = 0
			return r, nil
		case errors.Is(err, ErrSizeNotFound), errors.Is(err, ErrBadSizeKey), errors.Is(err, ErrFullCluster):
			return r, err
		}
		if err := s.pause(ctx, err); err != nil {
			return r, err
		}
	}
}

func (s *session) tryRead(ctx context.Context) (registry, error) {
	var r registry
	resp, err := s.get(ctx, &pb.RangeRequest{Key: []byte(sizeKey(s.o.Token))})
	if err != nil {
		return r, err
	}
	if r.size, err = parseSize(resp.Kvs); err != nil {
		return r, err
	}
	prefix := membersPrefix(s.o.Token)
	if resp, err = s.get(ctx, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix)}); err != nil {
		return r, err
	}
	r.members = parseMembers(resp.Kvs, func(i Ignored) { s.o.OnEvent(i) })
	r.revision = resp.Header.Revision
	return r, nil
}

func (s *session) get(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.RequestTimeout)
	defer cancel()
	return s.kv.Range(ctx, req, grpc.WaitForReady(true))
}

func (s *session) register(ctx context.Context, self string) error {
	for {
		call, cancel := context.WithTimeout(ctx, s.o.RequestTimeout)
		_, err := s.kv.Put(call, &pb.PutRequest{Key: []byte(s.key), Value: []byte(self)}, grpc.WaitForReady(true))
		cancel()
		if err == nil {
			s.retries = 0
			s.o.OnEvent(Registered{Key: s.key, Value: self})
			return nil
		}
		if err := s.pause(ctx, err); err != nil {
			return err
		}
	}
}

// awaitChange returns when something was written under the token after rev, or when that can no longer be known. Keep-alive pings
// notice a connection that is gone without a word.
func (s *session) awaitChange(ctx context.Context, rev int64) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	prefix := membersPrefix(s.o.Token)
	create := &pb.WatchCreateRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix), StartRevision: rev + 1}
	stream, err := s.watch.Watch(ctx, grpc.WaitForReady(true))
	if err == nil {
		err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
	}
	for err == nil {
		var resp *pb.WatchResponse
		if resp, err = stream.Recv(); err != nil {
			break
		}
		if len(resp.Events) > 0 {
			return
		}
		if resp.Canceled {
			break
		}
	}
	select { // the read that follows finds out whether the service is there
	case <-s.o.After(watchPause):
	case <-ctx.Done():
	}
}

// pause waits before the next attempt.
func (s *session) pause(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.retries = min(s.retries+1, retryDoublingsMax)
	wait := time.Second << s.retries
	s.o.OnEvent(Retrying{Err: cause, After: wait})
	select {
	case <-s.o.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prefixEnd is the range end of all keys that begin with prefix, which ends in a letter.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++
	return end
}
