package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/kubeshim/shim/test/internal/measure"
	"github.com/kubeshim/shim/test/internal/member"
	"github.com/kubeshim/shim/test/internal/peers"
	"github.com/kubeshim/shim/test/soak/ledger"
)

// soak is one server under load for some time.
type soak struct {
	options
	name   string
	server *member.Member
	api    *api
	load   *load
	report *run
	probe  *probe
	// beside is a second server, without a load, to be disturbed instead of this one;
	// nil if no phase needs it.
	beside *soak

	every      time.Duration // compactions; other things are in proportion
	compactKey *object
	notes      *notes
	recorders  []*recorder // by phase
	trace      io.Writer
	begin      time.Time
}

// soakOne has a server go through all phases, and judges it.
func soakOne(ctx context.Context, name string, o options) (rep *run, err error) {
	dir, err := os.MkdirTemp(o.dir, "shim-soak-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s := newSoak(name, o)
	s.report = &run{Server: name, Machine: measure.ThisMachine(), Seconds: o.length.Seconds(),
		Pods: o.pods, Nodes: o.nodes, WriteRate: o.rate, Rounds: o.rounds}
	if o.trace != "" {
		f, err := os.Create(o.trace + "-" + name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		s.trace = f
	}
	defer s.end()
	if err := s.start(dir, name); err != nil {
		return nil, err
	}
	plan := phases(o.rounds, o.only)
	if slices.ContainsFunc(plan, func(p phase) bool { return p.elsewhere }) {
		s.beside = newSoak(name, o)
		defer s.beside.end()
		if err := s.beside.start(dir, name+"-beside"); err != nil {
			return nil, err
		}
		if err := s.beside.load.fill(ctx, o.pods, o.nodes); err != nil {
			return nil, err
		}
	}
	if s.probe, err = newProbe(dir); err != nil {
		return nil, err
	}
	if err := s.all(ctx, plan); err != nil {
		return nil, fmt.Errorf("%w\n%s\n%s", err, strings.Join(s.api.book.Problems(), "\n"), s.server.Log())
	}
	return s.report, nil
}

func newSoak(name string, o options) *soak {
	return &soak{options: o, name: name, compactKey: &object{key: "compact_rev_key"}, trace: io.Discard,
		begin: time.Now(), every: max(o.length/30, 2*time.Second), notes: newNotes()}
}

// end ends the server for good.
func (s *soak) end() {
	if s.api != nil {
		s.api.close()
	}
	if s.server != nil {
		s.server.End(syscall.SIGKILL)
	}
}

// start launches the server on a fresh data dir.
func (s *soak) start(dir, name string) error {
	path, err := s.program()
	if err != nil {
		return err
	}
	if s.server, err = member.New(name, path, dir); err != nil {
		return err
	}
	quota := s.quota
	if s.name == "etcd" {
		quota *= 3
	}
	s.server.Etcd(s.server)
	s.server.Args = append(s.server.Args, fmt.Sprintf("--quota-backend-bytes=%d", quota), "--enable-pprof")
	s.server.Args = append(s.server.Args, s.flags...)
	if err := s.server.Launch(); err != nil {
		return err
	}
	if err := s.server.Connect(0); err != nil {
		return err
	}
	if s.api, err = newAPI(s.server.Client, ledger.New()); err != nil {
		return err
	}
	s.load = newLoad(s.api)
	return nil
}

func (s *soak) program() (string, error) {
	if s.binary != "" {
		return s.binary, nil
	}
	if s.name == "shim" {
		return peers.BuildShim()
	}
	return peers.Build(s.name)
}

// all is the whole run.
func (s *soak) all(ctx context.Context, plan []phase) error {
	ws, err := startWatchers(ctx, s.server.Client, s.api)
	if err != nil {
		return err
	}
	defer ws.close()
	if err := s.load.fill(ctx, s.pods, s.nodes); err != nil {
		return err
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		s.load.run(loading, s.rate)
	}()
	probed := make(chan error, 1)
	go func() { probed <- s.probe.run(loading) }()
	unix.Sync()             // what others have left for the disk to do is not ours
	pause(ctx, s.length/24) // until it is steady
	for _, p := range plan {
		if err := s.run(ctx, p); err != nil {
			return err
		}
	}
	if err := s.kill(ctx); err != nil {
		return err
	}
	stop()
	<-loaded
	if err := <-probed; err != nil {
		return err
	}
	if err := s.verify(ctx, ws); err != nil {
		return err
	}
	ws.close()
	s.judge()
	return nil
}

// kill ends the server under load and starts it again.
func (s *soak) kill(ctx context.Context) error {
	s.mark("kill -9")
	s.api.outage.Store(true)
	begin := time.Now()
	r := newRecorder()
	s.load.now.Store(r)
	if err := s.restart(ctx); err != nil {
		return err
	}
	s.report.Restart = time.Since(begin)
	s.api.outage.Store(false)
	pause(ctx, s.length/60)
	return nil
}

// restart is kill -9, and the wait for the first answer.
func (s *soak) restart(ctx context.Context) error {
	s.server.End(syscall.SIGKILL)
	if err := s.server.Launch(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := s.api.kv(services).Range(ctx, &pb.RangeRequest{Key: []byte("/registry/health")}, grpc.WaitForReady(true))
		if err == nil || !pause(ctx, time.Millisecond) { // a call may meet the connection that has just died
			return err
		}
	}
}

// verify looks at what is there when the load has ended, and once more after
// another kill.
func (s *soak) verify(ctx context.Context, ws *watchers) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	// A watch that begins behind the newest revision is promised nothing before there is one more.
	if out := s.api.put(ctx, services, &object{key: "/registry/masterleases/end"}, s.api.value(leaseBytes), 0); out != acked {
		return errors.New("the last write was not acknowledged")
	}
	rev, err := s.api.revision(ctx, services)
	if err != nil {
		return err
	}
	if err := ws.await(ctx, rev); err != nil {
		return err
	}
	before, err := s.hash(ctx, rev)
	if err != nil {
		return err
	}
	s.api.outage.Store(true)
	if err := s.restart(ctx); err != nil {
		return err
	}
	after, err := s.hash(ctx, rev)
	if err != nil {
		return err
	}
	if before.Hash != after.Hash || before.CompactRevision != after.CompactRevision {
		s.api.book.Problem("HashKV at revision %d is %v before kill -9 and %v after it", rev, before, after)
	}
	return s.everything(ctx)
}

func (s *soak) hash(ctx context.Context, rev int64) (*pb.HashKVResponse, error) {
	return pb.NewMaintenanceClient(s.api.conn[services]).HashKV(ctx, &pb.HashKVRequest{Revision: rev})
}

// everything lists all that is there, for the book.
func (s *soak) everything(ctx context.Context) error {
	resp, err := s.api.kv(services).Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		return err
	}
	var d ledger.Digest
	for _, kv := range resp.Kvs {
		d.Add(kv)
	}
	s.api.book.List("", resp.Header.Revision, d)
	return nil
}

// judge completes the report.
func (s *soak) judge() {
	s.mark("judging")
	s.report.Counts = s.api.book.Counts()
	s.report.ratios(s.recorders)
	s.report.flatness(s.flatMax)
	s.report.Problems = s.api.book.Judge()
}
