package script

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/cockroachdb/datadriven"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// watchStream is one open Watch call.
type watchStream struct {
	stream pb.Watch_WatchClient
	cancel context.CancelFunc
}

func (s *Session) watchOpen(d *datadriven.TestData) (string, error) {
	if len(d.CmdArgs) == 0 {
		return "", errors.New("want a name for the stream")
	}
	ctx, cancel := context.WithCancel(s.outgoing(d))
	stream, err := pb.NewWatchClient(s.conn).Watch(ctx)
	if err != nil {
		cancel()
		return "", err
	}
	s.watches[d.CmdArgs[0].Key] = &watchStream{stream: stream, cancel: cancel}
	return "", nil
}

func (s *Session) watch(d *datadriven.TestData) (*watchStream, error) {
	if len(d.CmdArgs) > 0 && s.watches[d.CmdArgs[0].Key] != nil {
		return s.watches[d.CmdArgs[0].Key], nil
	}
	return nil, fmt.Errorf("want one of the streams %v", sortedNames(s.watches))
}

func (s *Session) watchSend(d *datadriven.TestData) (string, error) {
	w, err := s.watch(d)
	if err != nil {
		return "", err
	}
	for _, text := range requests(d.Input) {
		req := &pb.WatchRequest{}
		if err := s.parse(text, 1, req); err != nil {
			return "", err
		}
		if err := w.stream.Send(req); err != nil {
			return fault(err), nil
		}
	}
	return "", nil
}

// recv waits for one response; a time-out ends the stream.
func (w *watchStream) recv() (*pb.WatchResponse, error) {
	type answer struct {
		resp *pb.WatchResponse
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		resp, err := w.stream.Recv()
		got <- answer{resp, err}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), callMax)
	defer cancel()
	select {
	case a := <-got:
		return a.resp, a.err
	case <-ctx.Done():
		w.cancel()
		<-got
		return nil, fmt.Errorf("nothing came within %v", callMax)
	}
}

func (s *Session) watchRecv(d *datadriven.TestData) (string, error) {
	w, err := s.watch(d)
	if err != nil {
		return "", err
	}
	n, err := intArg(d, "n", 1)
	if err != nil {
		return "", err
	}
	if d.HasArg("events") {
		until := ""
		for _, a := range d.CmdArgs {
			if a.Key == "until" && len(a.Vals) == 1 {
				until = a.Vals[0]
				n = eventsMax
			}
		}
		return s.watchEvents(w, n, until)
	}
	var all []*pb.WatchResponse
	end := ""
	for range n {
		resp, err := w.recv()
		if err != nil {
			end = fault(err)
			break
		}
		all = append(all, resp)
	}
	if d.HasArg("sort") {
		sort.SliceStable(all, func(i, j int) bool { return all[i].WatchId < all[j].WatchId })
	}
	var b strings.Builder
	for _, resp := range all {
		b.WriteString(s.printer().message("response", resp))
	}
	return b.String() + end, nil
}

// watchEvents prints n events without regard to how they were batched, or
// fewer when one is of the key until or the watch is cancelled.
func (s *Session) watchEvents(w *watchStream, n int, until string) (string, error) {
	var b strings.Builder
	last := map[int64]int64{} // watch id to the revision of its last complete response
	for n > 0 {
		resp, err := w.recv()
		if err != nil {
			return b.String() + fault(err), nil
		}
		if len(resp.Events) == 0 {
			b.WriteString(s.printer().message("response", resp))
			if resp.Canceled {
				return b.String(), nil
			}
			continue
		}
		n -= len(resp.Events)
		b.WriteString(s.events(resp, last[resp.WatchId]))
		if resp.CompactRevision != 0 || resp.CancelReason != "" || resp.Created || resp.Canceled {
			b.WriteString("events came with a change of the watch\n")
		}
		end := resp.Events[len(resp.Events)-1].Kv
		if !resp.Fragment {
			last[resp.WatchId] = end.ModRevision
		}
		if until != "" && string(end.Key) == until {
			return b.String(), nil
		}
	}
	if n < 0 {
		fmt.Fprintf(&b, "%d events more than asked for\n", -n)
	}
	return b.String(), nil
}

// events prints those of one response; the ones before had revisions up to last.
func (s *Session) events(resp *pb.WatchResponse, last int64) string {
	var b strings.Builder
	for _, e := range resp.Events {
		if e.Kv.ModRevision <= last {
			fmt.Fprintf(&b, "revision %d is split or repeated\n", e.Kv.ModRevision)
		}
		if e.Kv.ModRevision > resp.Header.GetRevision() {
			fmt.Fprintf(&b, "header %d is below the event\n", resp.Header.GetRevision())
		}
		b.WriteString(s.printer().message(fmt.Sprintf("watch %d", resp.WatchId), e))
	}
	return b.String()
}

// watchHalfClose says that no request follows. The watches of the stream go on.
func (s *Session) watchHalfClose(d *datadriven.TestData) (string, error) {
	w, err := s.watch(d)
	if err != nil {
		return "", err
	}
	return "", w.stream.CloseSend()
}
