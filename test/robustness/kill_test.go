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

	"github.com/kubeshim/shim/test/robustness/history"
)

const (
	killRounds    = 16
	killClients   = 6
	killOpsMin    = 100
	killOpsSpread = 300
)

// killSpecs are the watches, by stream.
func killSpecs() [][]history.WatchSpec {
	all := history.WatchSpec{Name: "everything", Key: "\x00", End: "\x00", From: 1, Prev: true}
	return [][]history.WatchSpec{
		{all, {Name: "plain keys", Key: "k/", End: "k0", From: 1}, {Name: "one key", Key: "k/1", From: 1, Prev: true, ClientsID: 77}},
		{{Name: "pairs in fragments", Key: "m/", End: "m0", From: 1, Fragment: true, Prev: true}, {Name: "puts", Key: "\x00", End: "\x00", From: 1, NoDelete: true}},
		{{Name: "deletions", Key: "k/", End: "k0", From: 1, NoPut: true, Prev: true, Notify: true}, {Name: "leased", Key: "l/", End: "l0", From: 1, Prev: true}},
		{{Name: "from now on", Key: "\x00", End: "\x00", Prev: true}},
		{{Name: "from the future", Key: "k/", End: "k0", From: 200, Notify: true}},
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
	var watchers []*history.Watcher
	var watchersDone, clientsDone sync.WaitGroup
	for _, specs := range killSpecs() {
		c := history.NewWatchClient(s.dial(), t.Errorf, specs...)
		watchers = append(watchers, c.Watchers...)
		watchersDone.Go(func() { c.Run(watching) })
	}
	rec := history.NewRecording()
	working, stopWorking := context.WithCancel(context.Background())
	defer stopWorking()
	safe := func() int64 {
		rev := watchers[0].Position()
		for _, w := range watchers {
			rev = min(rev, w.Position())
		}
		return rev - 1
	}
	for i := range killClients {
		c := history.NewClient(i, rec, s.dial(), history.ClientOptions{Seed: seed, Safe: safe})
		clientsDone.Go(func() { c.Run(working) })
	}
	for round := range rounds {
		awaitAnswers(t, rec, int64(killOpsMin+rng.IntN(killOpsSpread)))
		disturb(s, round)
	}
	awaitAnswers(t, rec, killOpsMin)
	stopWorking()
	clientsDone.Wait()
	disturb(s, rounds)
	// As in etcd, a stream whose watches all begin behind the newest revision gets no progress before there is one more.
	history.NewClient(killClients, rec, s.dial(), history.ClientOptions{}).Call(&pb.PutRequest{Key: []byte("z/end"), Value: []byte("end")})
	final := readAll(t, s)
	for _, w := range watchers {
		await(t, "watch "+w.Spec.Name, func() bool { return w.Promised() >= final.Header.Revision })
	}
	stopWatching()
	watchersDone.Wait()
	if !t.Failed() {
		judge(t, rec, watchers, final)
	}
}

// awaitAnswers waits until there are n more.
func awaitAnswers(t *testing.T, rec *history.Recording, n int64) {
	t.Helper()
	goal := rec.Answers.Load() + n
	await(t, "answers", func() bool { return rec.Answers.Load() >= goal })
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
func judge(t *testing.T, rec *history.Recording, watchers []*history.Watcher, final *pb.RangeResponse) {
	t.Helper()
	h, problems := history.New(watchers[0])
	if len(problems) == 0 {
		ops := h.Settle(rec.Ops())
		problems = append(problems, h.CheckAnswers(append(ops, &history.Op{Request: &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, Response: final}))...)
		problems = append(problems, history.CheckOrder(ops)...)
		problems = append(problems, h.CheckLeases(rec)...)
		for _, w := range watchers {
			problems = append(problems, w.Check(h)...)
		}
		unknown := 0
		for _, o := range ops {
			if o.Return == 1<<62 {
				unknown++
			}
		}
		t.Logf("%d calls, %d of them without an answer, %d revisions, %d events", len(ops), unknown, h.Last(), h.Events())
		if h.Last() != final.Header.Revision {
			t.Errorf("the watch ends at revision %d, and the store is at %d", h.Last(), final.Header.Revision)
		}
		problems = append(problems, history.CheckLinearizable(ops)...)
	}
	for i, p := range problems {
		if i == 20 {
			t.Errorf("and %d more", len(problems)-i)
			break
		}
		t.Error(p)
	}
	for _, o := range rec.Ops() { // the two of a pair are never apart
		if r, ok := o.Response.(*pb.RangeResponse); ok && len(r.Kvs) == 2 && bytes.HasPrefix(r.Kvs[0].Key, []byte(history.PairKeys)) && r.Kvs[0].ModRevision != r.Kvs[1].ModRevision {
			t.Errorf("half a pair: %v", r)
		}
	}
}
