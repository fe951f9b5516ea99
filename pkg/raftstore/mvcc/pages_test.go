package mvcc

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// pageText writes a page: how many, from which key on, and its summary.
func pageText(keys [][]byte, count int64, more bool, rev int64) string {
	first := ""
	if len(keys) > 0 {
		first = string(keys[0])
	}
	return fmt.Sprintf("%d from %q count=%d more=%v rev=%d", len(keys), first, count, more, rev)
}

func pagesText(v *View, r *pb.RangeRequest, target int) (out []string, versions []*Version, err error) {
	for p, err := range v.Pages(r, target) {
		if err != nil {
			return out, versions, err
		}
		var keys [][]byte
		for _, x := range p.Versions {
			keys = append(keys, x.Key())
		}
		out = append(out, pageText(keys, p.Count, p.More, int64(p.Revision)))
		versions = append(versions, p.Versions...)
		if p.Last {
			out = append(out, "end")
		}
	}
	return out, versions, nil
}

// streamRequests are ranges over the keys of unevenPuts.
func streamRequests(rev int64) []*pb.RangeRequest {
	all := func(r *pb.RangeRequest) *pb.RangeRequest {
		r.Key, r.RangeEnd = []byte("k"), []byte("l")
		return r
	}
	return []*pb.RangeRequest{
		all(&pb.RangeRequest{}),
		all(&pb.RangeRequest{KeysOnly: true}),
		all(&pb.RangeRequest{CountOnly: true}),
		all(&pb.RangeRequest{Limit: 3}),
		all(&pb.RangeRequest{Limit: 10}),
		all(&pb.RangeRequest{Limit: 150}),
		all(&pb.RangeRequest{Limit: 300}),
		all(&pb.RangeRequest{Limit: 301}),
		all(&pb.RangeRequest{Revision: rev / 2}),
		all(&pb.RangeRequest{Revision: rev / 2, Limit: 77}),
		all(&pb.RangeRequest{Revision: rev}),
		all(&pb.RangeRequest{Revision: rev + 1}),
		{Key: []byte("k000")},
		{Key: []byte("k290"), RangeEnd: []byte{0}},
		{Key: []byte("x"), RangeEnd: []byte("y")},
	}
}

// unevenPuts puts 300 keys with values small and large.
func unevenPuts(put func(*pb.PutRequest)) {
	rng := rand.New(rand.NewPCG(4, 4))
	for i := range 300 {
		size := rng.IntN(200)
		if i%100 > 40 {
			size = rng.IntN(150_000)
		}
		put(&pb.PutRequest{Key: fmt.Appendf(nil, "k%03d", i), Value: make([]byte, size)})
	}
}

// TestPages checks that pages, of any size, are the range in one piece.
func TestPages(t *testing.T) {
	s := New(Options{})
	unevenPuts(func(p *pb.PutRequest) {
		s.Apply(Entry{Index: s.Index() + 1, Request: &pb.InternalRaftRequest{Put: p}})
	})
	v := s.Publish()
	for _, r := range streamRequests(int64(v.Revision())) {
		whole, werr := v.Range(r)
		for _, target := range []int{1, 1000, 100_000, 1 << 30} {
			out, versions, err := pagesText(v, r, target)
			if err != werr {
				t.Fatalf("%v: %v, want %v", r, err, werr)
			}
			if err != nil {
				continue
			}
			if !slices.Equal(versions, whole.Versions) {
				t.Errorf("%v in pages of %d bytes: %d versions, want %d", r, target, len(versions), len(whole.Versions))
			}
			want := fmt.Sprintf("count=%d more=%v rev=%d", whole.Count, whole.More, whole.Revision)
			if last := out[len(out)-2]; len(last) < len(want) || last[len(last)-len(want):] != want || out[len(out)-1] != "end" {
				t.Errorf("%v in pages of %d bytes: ends with %v, want %s", r, target, out[len(out)-2:], want)
			}
		}
	}
	pages := 0
	for range v.Pages(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}, 1) {
		if pages++; pages == 3 {
			break
		}
	}
	if pages != 3 {
		t.Errorf("pages did not stop: %d", pages)
	}
}

// TestRealEtcdRangeStream checks that etcd cuts its streams in the same places.
func TestRealEtcdRangeStream(t *testing.T) {
	const maxRequestBytes = 3 << 19 // etcd's default, and its aim for a chunk
	e := startEtcd(t)
	s := New(Options{})
	unevenPuts(func(p *pb.PutRequest) {
		r := &pb.InternalRaftRequest{Put: p}
		s.Apply(Entry{Index: s.Index() + 1, Request: r})
		e.apply(r)
	})
	v := s.Publish()
	for _, r := range streamRequests(int64(v.Revision())) {
		got, _, err := pagesText(v, r, maxRequestBytes)
		want, werr := e.streamText(r)
		if fmt.Sprint(got, err) != fmt.Sprint(want, werr) {
			t.Errorf("%v:\netcd %q %v\ngot  %q %v", r, want, werr, got, err)
		}
	}
}

func (e *realEtcd) streamText(r *pb.RangeRequest) (out []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stream, err := e.kv.RangeStream(ctx, r)
	if err != nil {
		return nil, err
	}
	for {
		c, err := stream.Recv()
		if err == io.EOF {
			return append(out, "end"), nil
		}
		if err != nil {
			return out, sentinel(err)
		}
		var keys [][]byte
		for _, kv := range c.RangeResponse.Kvs {
			keys = append(keys, kv.Key)
		}
		a := c.RangeResponse
		out = append(out, pageText(keys, a.Count, a.More, a.Header.GetRevision()))
	}
}
