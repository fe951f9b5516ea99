package script

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/grpc/status"
)

// Config says which server a session talks to.
type Config struct {
	Binary  string // the server
	Etcdutl string // for snapshot
	TempDir string // empty and the session's own
}

// Session is one server, or the members of one cluster, and one script's
// connections to them.
type Session struct {
	cfg     Config
	*member                    // the one that the directive is for; nil before the first
	members []*member          // all that were started, in their order
	joining map[string]*member // added to the cluster and not started yet
	leases  map[string]int64
	ids     map[string]uint64 // of members
	watches map[string]*watchStream
	streams map[string]*jsonStream
	pending map[string]*pendingCall
	tokens  map[string]string
	ca      *authority // nil without TLS
}

// New returns a session whose server starts with the first directive.
func New(cfg Config) *Session {
	return &Session{cfg: cfg, joining: map[string]*member{}, leases: map[string]int64{}, ids: map[string]uint64{}, watches: map[string]*watchStream{},
		streams: map[string]*jsonStream{}, pending: map[string]*pendingCall{}, tokens: map[string]string{}}
}

// Close ends the streams, the connections and the servers.
func (s *Session) Close() error {
	s.endStreams()
	var errs []error
	for _, m := range s.members {
		m.disconnect()
		if m.down {
			continue
		}
		// Those that stop last have no quorum: what a member without one does at its end is its own business.
		if len(s.members) > 1 {
			m.server.Kill()
		} else {
			errs = append(errs, m.server.Stop())
		}
	}
	return errors.Join(errs...)
}

// Run executes one directive and returns what is to be compared. An error is a
// mistake of the script or a server that does not run.
func (s *Session) Run(d *datadriven.TestData) (string, error) {
	if d.Cmd == "server" {
		if s.member != nil {
			return "", errors.New("server must be the first directive")
		}
		return "", s.serve(d)
	}
	if d.Cmd == "cluster" {
		return "", s.startCluster(d)
	}
	if s.member == nil {
		if err := s.start(nil); err != nil {
			return "", err
		}
	}
	if err := s.turnTo(d); err != nil {
		return "", err
	}
	user, _ := option(d, "cn")
	if err := s.connectAs(user); err != nil {
		return "", err
	}
	switch d.Cmd {
	case "rangestream":
		return s.rangeStream(d)
	case "keepalive":
		return s.keepAlive(d)
	case "watch-open":
		return s.watchOpen(d)
	case "watch-send":
		return s.watchSend(d)
	case "watch-recv":
		return s.watchRecv(d)
	case "watch-halfclose":
		return s.watchHalfClose(d)
	case "raw":
		return s.raw(d)
	case "restart":
		return "", s.restart(d.HasArg("kill"))
	case "launch":
		return "", s.launch(d)
	case "stop":
		return "", s.stop(d.HasArg("kill"))
	case "ended":
		return s.ended(), nil
	case "snapshot":
		return s.snapshot(d)
	case "http":
		return s.http(d)
	case "json":
		return s.json(d)
	case "json-open":
		return s.jsonOpen(d)
	case "json-recv":
		return s.jsonRecv(d)
	case "begin":
		return s.begin(d)
	case "end":
		return s.end(d)
	case "cancel":
		return s.cancelPending(d)
	case "observe":
		return s.observe(d)
	case "observe-recv":
		return s.observeRecv(d)
	}
	return s.unary(d)
}

// serve starts the server with the flags that d says.
func (s *Session) serve(d *datadriven.TestData) (err error) {
	if d.HasArg("tls") {
		if s.ca, err = newAuthority(s.cfg.TempDir + "/certs"); err != nil {
			return err
		}
	}
	flags, err := s.withKeys(serverFlags(d.CmdArgs))
	if err != nil {
		return err
	}
	return s.start(flags)
}

func (s *Session) start(flags []string) error {
	if s.ca != nil {
		flags = append(flags, s.ca.flags()...)
	}
	server, err := start(s.cfg.Binary, s.cfg.TempDir+"/data", s.ca != nil, flags)
	if server != nil && server.run != nil {
		s.member = &member{server: server, ca: s.ca}
		s.members = append(s.members, s.member)
	}
	if err != nil {
		return err
	}
	return s.connect()
}

// endStreams ends what goes on from one directive to another.
func (s *Session) endStreams() {
	for _, w := range s.watches {
		w.cancel()
	}
	clear(s.watches)
	for _, j := range s.streams {
		j.close()
	}
	clear(s.streams)
	for _, p := range s.pending {
		p.cancel()
		<-p.done
	}
	clear(s.pending)
}

func (s *Session) restart(kill bool) error {
	s.endStreams()
	s.disconnect()
	if !s.down {
		if err := s.stop(kill); err != nil {
			return err
		}
	}
	s.down = false
	if err := s.server.Launch(); err != nil {
		return err
	}
	return s.connect()
}

// stop ends a server. It can be restarted.
func (s *Session) stop(kill bool) error {
	s.down = true
	if kill {
		s.server.Kill()
		return nil
	}
	return s.server.Stop()
}

// context gives one answer its time, and the metadata that d asks for.
func (s *Session) context(d *datadriven.TestData) (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.outgoing(d), callMax)
}

func (s *Session) printer() printer { return printer{leases: s.leases} }

// fault prints an error as code and message.
func fault(err error) string {
	if err == io.EOF {
		return "EOF\n"
	}
	st := status.Convert(err)
	return fmt.Sprintf("%s: %s\n", st.Code(), st.Message())
}

// snapshot streams a backup into a file and has etcdutl read it: its content
// is compared through the hash of its keys.
func (s *Session) snapshot(d *datadriven.TestData) (string, error) {
	path := s.cfg.TempDir + "/backup.db"
	if err := s.backup(d, path); err != nil {
		return fault(err), nil
	}
	defer os.Remove(path)
	var b strings.Builder
	for _, args := range [][]string{{"snapshot", "status", "-w=fields"}, {"hashkv", "-w=fields"}} {
		out, err := exec.Command(s.cfg.Etcdutl, append(args, path)...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("etcdutl %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		for _, line := range strings.Split(string(out), "\n") {
			name, _, _ := strings.Cut(line, ":")
			switch {
			case line == "" || strings.HasPrefix(line, "{"):
			case args[0] == "snapshot" && !strings.Contains(name, "Revision"):
				fmt.Fprintf(&b, "%s : #\n", strings.TrimSpace(name))
			default:
				b.WriteString(line + "\n")
			}
		}
	}
	return b.String(), nil
}

// intArg reads an option that is a number; fallback when it is not given.
func intArg(d *datadriven.TestData, name string, fallback int) (int, error) {
	for _, a := range d.CmdArgs {
		if a.Key != name {
			continue
		}
		if len(a.Vals) != 1 {
			return 0, fmt.Errorf("%s: want one number", name)
		}
		return strconv.Atoi(a.Vals[0])
	}
	return fallback, nil
}
