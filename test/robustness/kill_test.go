package robustness

import (
	"bytes"
	"context"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

const (
	killRounds    = 16
	killClients   = 6
	killOpsMin    = 100
	killOpsSpread = 300
)

// killSpecs are the watches, by stream.
func killSpecs() [][]watchSpec {
	all := watchSpec{name: "everything", key: "\x00", end: "\x00", from: 1, prev: true, everything: true}
	return [][]watchSpec{
		{all, {name: "plain keys", key: "k/", end: "k0", from: 1}, {name: "one key", key: "k/1", from: 1, prev: true, clientsID: 77}},
		{{name: "pairs in fragments", key: "m/", end: "m0", from: 1, fragment: true, prev: true}, {name: "puts", key: "\x00", end: "\x00", from: 1, noDelete: true}},
		{{name: "deletions", key: "k/", end: "k0", from: 1, noPut: true, prev: true, notify: true}, {name: "leased", key: "l/", end: "l0", from: 1, prev: true}},
		{{name: "from now on", key: "\x00", end: "\x00", prev: true}},
		{{name: "from the future", key: "k/", end: "k0", from: 200, notify: true}},
	}
}

// TestKill: what clients and watchers were told stays true over kill -9.
func TestKill(t *testing.T) {
	storm(t, killRounds, func(s *server, round int) {
		s.kill()
		if round%3 == 2 { // and once more while it starts
			s.launch()
			s.kill()
		}
		s.start()
	})
}

// storm has clients and watchers at work, disturbs the server in each round, and checks all that was recorded.
func storm(t *testing.T, rounds int, disturb func(s *server, round int)) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	s := startServer(t, filepath.Join(t.TempDir(), "data"), "--snapshot-count=150", "--watch-progress-notify-interval=100ms")
	watching, stopWatching := context.WithCancel(context.Background())
	defer stopWatching()
	var watchers []*watcher
	var watchersDone, clientsDone sync.WaitGroup
	for _, specs := range killSpecs() {
		c := newWatchClient(s.dial(), t.Errorf, specs...)
		watchers = append(watchers, c.watchers...)
		watchersDone.Go(func() { c.run(watching) })
	}
	rec := newRecording()
	working, stopWorking := context.WithCancel(context.Background())
	defer stopWorking()
	safe := func() int64 {
		rev := watchers[0].position()
		for _, w := range watchers {
			rev = min(rev, w.position())
		}
		return rev - 1
	}
	for i := range killClients {
		c := newTrafficClient(i, rec, s.dial(), seed, safe)
		clientsDone.Go(func() { c.run(working) })
	}
	for round := range rounds {
		rec.awaitAnswers(t, int64(killOpsMin+rng.IntN(killOpsSpread)))
		disturb(s, round)
	}
	rec.awaitAnswers(t, killOpsMin)
	stopWorking()
	clientsDone.Wait()
	disturb(s, rounds)
	// As in etcd, a stream whose watches all begin behind the newest revision gets no progress before there is one more.
	newTrafficClient(killClients, rec, s.dial(), seed, safe).record(&pb.PutRequest{Key: []byte("z/end"), Value: []byte("end")})
	final := readAll(t, s)
	for _, w := range watchers {
		await(t, "watch "+w.spec.name, func() bool { return w.promised() >= final.Header.Revision })
	}
	stopWatching()
	watchersDone.Wait()
	if !t.Failed() {
		judge(t, rec, watchers, final)
	}
}

func readAll(t *testing.T, s *server) *pb.RangeResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := pb.NewKVClient(s.dial()).Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// judge checks the recording of a run.
func judge(t *testing.T, rec *recording, watchers []*watcher, final *pb.RangeResponse) {
	t.Helper()
	h, problems := newHistory(watchers[0])
	if len(problems) == 0 {
		ops := h.settle(rec.ops)
		problems = append(problems, h.checkAnswers(append(ops, &op{req: &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, resp: final}))...)
		problems = append(problems, checkOrder(ops)...)
		problems = append(problems, h.checkLeases(rec)...)
		for _, w := range watchers {
			problems = append(problems, w.check(h)...)
		}
		unknown := 0
		for _, o := range ops {
			if o.answer == 1<<62 {
				unknown++
			}
		}
		t.Logf("%d calls, %d of them without an answer, %d revisions, %d events", len(ops), unknown, h.last(), len(h.events))
		if h.last() != final.Header.Revision {
			t.Errorf("the watch ends at revision %d, and the store is at %d", h.last(), final.Header.Revision)
		}
		checkLinearizable(t, ops)
	}
	for i, p := range problems {
		if i == 20 {
			t.Errorf("and %d more", len(problems)-i)
			break
		}
		t.Error(p)
	}
	for _, o := range rec.ops { // the two of a pair are never apart
		if r, ok := o.resp.(*pb.RangeResponse); ok && len(r.Kvs) == 2 && bytes.HasPrefix(r.Kvs[0].Key, []byte(pairKeys)) && r.Kvs[0].ModRevision != r.Kvs[1].ModRevision {
			t.Errorf("half a pair: %v", r)
		}
	}
}
