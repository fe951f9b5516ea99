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
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Config says which server a session talks to.
type Config struct {
	Binary  string // the server
	Etcdutl string // for snapshot
	TempDir string // empty and the session's own
}

// Session is one server and one script's connections to it.
type Session struct {
	cfg     Config
	server  *Server
	conn    *grpc.ClientConn
	leases  map[string]int64
	watches map[string]*watchStream
}

// New returns a session whose server starts with the first directive.
func New(cfg Config) *Session {
	return &Session{cfg: cfg, leases: map[string]int64{}, watches: map[string]*watchStream{}}
}

// Close ends the streams, the connection and the server.
func (s *Session) Close() error {
	if s.server == nil {
		return nil
	}
	s.disconnect()
	return s.server.Stop()
}

// Run executes one directive and returns what is to be compared. An error is a
// mistake of the script or a server that does not run.
func (s *Session) Run(d *datadriven.TestData) (string, error) {
	if d.Cmd == "server" {
		if s.server != nil {
			return "", errors.New("server must be the first directive")
		}
		var flags []string
		for _, a := range d.CmdArgs {
			flags = append(flags, "--"+a.Key+"="+strings.Join(a.Vals, ","))
		}
		return "", s.start(flags)
	}
	if s.server == nil {
		if err := s.start(nil); err != nil {
			return "", err
		}
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
	case "snapshot":
		return s.snapshot()
	case "http":
		return s.http(d)
	}
	return s.unary(d)
}

func (s *Session) start(flags []string) error {
	server, err := Start(s.cfg.Binary, s.cfg.TempDir+"/data", flags)
	if server != nil && server.run != nil {
		s.server = server
	}
	if err != nil {
		return err
	}
	return s.connect()
}

func (s *Session) connect() error {
	conn, err := grpc.NewClient("passthrough:///"+s.server.client,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageMax), grpc.MaxCallSendMsgSize(messageMax), grpc.WaitForReady(true)))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	s.conn = conn
	return nil
}

func (s *Session) disconnect() {
	for _, w := range s.watches {
		w.cancel()
	}
	clear(s.watches)
	if s.conn != nil {
		s.conn.Close()
	}
}

func (s *Session) restart(kill bool) error {
	s.disconnect()
	if kill {
		s.server.Kill()
	} else if err := s.server.Stop(); err != nil {
		return err
	}
	if err := s.server.Launch(); err != nil {
		return err
	}
	return s.connect()
}

// context gives one answer its time, and the metadata that d asks for.
func (s *Session) context(d *datadriven.TestData) (context.Context, context.CancelFunc) {
	return context.WithTimeout(outgoing(d), callMax)
}

func outgoing(d *datadriven.TestData) context.Context {
	ctx := context.Background()
	if d.HasArg("leader") {
		ctx = metadata.AppendToOutgoingContext(ctx, "hasleader", "true")
	}
	return ctx
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
func (s *Session) snapshot() (string, error) {
	path := s.cfg.TempDir + "/backup.db"
	if err := s.Backup(path); err != nil {
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
