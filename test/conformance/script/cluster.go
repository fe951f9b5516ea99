package script

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/datadriven"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// member is one server of a session and the connections to it.
type member struct {
	server *Server
	conn   *grpc.ClientConn            // the current one
	conns  map[string]*grpc.ClientConn // by the user of the certificate; one without TLS
	down   bool                        // stopped by the script
	ca     *authority                  // nil without TLS
}

func (m *member) connect() error { return m.connectAs("") }

// connectAs turns to the connection of a user, or makes it.
func (m *member) connectAs(user string) error {
	if m.conn = m.conns[user]; m.conn != nil {
		return nil
	}
	creds := insecure.NewCredentials()
	if m.ca != nil {
		config, err := m.ca.client(user)
		if err != nil {
			return err
		}
		creds = credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient("passthrough:///"+m.server.client,
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageMax), grpc.MaxCallSendMsgSize(messageMax), grpc.WaitForReady(true)))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if m.conns == nil {
		m.conns = map[string]*grpc.ClientConn{}
	}
	m.conn, m.conns[user] = conn, conn
	return nil
}

func (m *member) disconnect() {
	for _, c := range m.conns {
		c.Close()
	}
	m.conn, m.conns = nil, nil
}

// startCluster starts members m1 to mN at once, as each needs a majority to
// be ready.
func (s *Session) startCluster(d *datadriven.TestData) error {
	if s.member != nil || len(d.CmdArgs) == 0 {
		return errors.New("cluster N must be the first directive")
	}
	n, err := strconv.Atoi(d.CmdArgs[0].Key)
	if err != nil {
		return err
	}
	var all []*Server
	for i := range n {
		name := fmt.Sprintf("m%d", i+1)
		server, err := newServer(name, s.cfg.Binary, s.cfg.TempDir+"/"+name)
		if err != nil {
			return err
		}
		all = append(all, server)
	}
	errs := make(chan error)
	for _, server := range all {
		flags, err := s.withKeys(serverFlags(d.CmdArgs[1:]))
		if err != nil {
			return err
		}
		server.configure(all, flags)
		go func() { errs <- server.Launch() }()
	}
	for range all {
		err = errors.Join(err, <-errs)
	}
	for _, server := range all {
		if server.run == nil {
			continue
		}
		m := &member{server: server}
		s.members = append(s.members, m)
		err = errors.Join(err, m.connect())
	}
	if err == nil {
		s.member = s.members[0]
	}
	return err
}

// prepareJoin gives the member that a request adds an address, and keeps it for
// launch.
func (s *Session) prepareJoin(d *datadriven.TestData, r *pb.MemberAddRequest) error {
	name, _ := option(d, "join")
	if s.joining[name] == nil {
		server, err := newServer(name, s.cfg.Binary, s.cfg.TempDir+"/"+name)
		if err != nil {
			return err
		}
		s.joining[name] = &member{server: server}
	}
	r.PeerURLs = []string{"http://" + s.joining[name].server.peer}
	return nil
}

// launch starts a member that was added. Who is in the cluster is asked of the
// current one.
func (s *Session) launch(d *datadriven.TestData) error {
	if len(d.CmdArgs) == 0 || s.joining[d.CmdArgs[0].Key] == nil {
		return errors.New("want the name of a member that was added")
	}
	m := s.joining[d.CmdArgs[0].Key]
	ctx, cancel := context.WithTimeout(context.Background(), callMax)
	defer cancel()
	list, err := pb.NewClusterClient(s.conn).MemberList(ctx, &pb.MemberListRequest{})
	if err != nil {
		return fmt.Errorf("list members: %w", err)
	}
	all := []*Server{m.server}
	for _, x := range list.Members {
		if x.Name != "" {
			all = append(all, &Server{name: x.Name, peer: strings.TrimPrefix(x.PeerURLs[0], "http://")})
		}
	}
	m.server.configure(all, append([]string{"--initial-cluster-state=existing"}, serverFlags(d.CmdArgs[1:])...))
	err = m.server.Launch()
	if m.server.run != nil {
		s.members = append(s.members, m)
		delete(s.joining, d.CmdArgs[0].Key)
	}
	if err != nil {
		return err
	}
	return m.connect()
}

// turnTo makes the member that at=NAME names the current one: by its name,
// leader, follower for any other that is up, or down for one that was stopped.
// Without it that is the first.
func (s *Session) turnTo(d *datadriven.TestData) error {
	name, ok := option(d, "at")
	switch {
	case !ok:
		s.member = s.members[0]
		return nil
	case name == "leader" || name == "follower":
		return s.turnToRole(d, name)
	}
	for _, m := range s.members {
		if m.server.name == name || name == "down" && m.down {
			s.member = m
			return nil
		}
	}
	return fmt.Errorf("no member is %s", name)
}

// turnToRole asks all members until they agree on a leader that is up.
func (s *Session) turnToRole(d *datadriven.TestData, role string) error {
	ctx, cancel := s.context(d)
	defer cancel()
	for ctx.Err() == nil {
		roles := map[string]*member{}
		leaders := map[uint64]bool{}
		for _, m := range s.members {
			if m.down {
				continue
			}
			st, err := pb.NewMaintenanceClient(m.conn).Status(ctx, &pb.StatusRequest{})
			if err != nil {
				break
			}
			leaders[st.Leader] = true
			if st.Leader == st.Header.MemberId {
				roles["leader"] = m
			} else if !st.IsLearner {
				roles["follower"] = m
			}
		}
		if len(leaders) == 1 && roles["leader"] != nil && roles[role] != nil {
			s.member = roles[role]
			return nil
		}
		time.Sleep(retryInterval)
	}
	return fmt.Errorf("no %s within %v", role, callMax)
}

// ended waits for a server to end by itself, and prints how it did.
func (s *Session) ended() string {
	p := s.server.run
	select {
	case <-p.done:
	case <-time.After(stopMax):
		return "goes on\n"
	}
	s.down = true
	if p.err != nil {
		return fmt.Sprintf("ended: %v\n", p.err)
	}
	return "ended\n"
}

// serverFlags are the flags that arguments of a directive stand for.
func serverFlags(args []datadriven.CmdArg) []string {
	var flags []string
	for _, a := range args {
		if len(a.Vals) == 0 {
			continue // not a flag
		}
		flags = append(flags, "--"+a.Key+"="+strings.Join(a.Vals, ","))
	}
	return flags
}

// option is the value of name=VALUE.
func option(d *datadriven.TestData, name string) (string, bool) {
	for _, a := range d.CmdArgs {
		if a.Key == name && len(a.Vals) == 1 {
			return a.Vals[0], true
		}
	}
	return "", false
}
