package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

const verbSave = snapshotVerb("shim snapshot save")

// saveFlags are etcdctl's, and have its variables.
type saveFlags struct {
	endpoint        string
	cacert          string
	cert, key       string
	skipVerify      bool
	user, password  string
	jwt             string
	dialTimeout     time.Duration
	commandTimeout  time.Duration
	keepaliveTime   time.Duration
	keepaliveExpiry time.Duration
}

func (f *saveFlags) set() *flag.FlagSet {
	fs := flag.NewFlagSet(string(verbSave), flag.ContinueOnError)
	fs.StringVar(&f.endpoint, "endpoints", "127.0.0.1:2379", "The client URL of the one member to ask, or its host:port.")
	fs.StringVar(&f.cacert, "cacert", "", "Certificates that the server's is verified with. Default those of the host.")
	fs.StringVar(&f.cert, "cert", "", "The certificate to show to the server.")
	fs.StringVar(&f.key, "key", "", "The key of --cert.")
	fs.BoolVar(&f.skipVerify, "insecure-skip-tls-verify", false, "Do not verify the server's certificate.")
	fs.StringVar(&f.user, "user", "", "Log in as this user, as name[:password]. It needs the role root.")
	fs.StringVar(&f.password, "password", "", "The password of --user, which is then the name alone.")
	fs.StringVar(&f.jwt, "auth-jwt-token", "", "The token to show instead of logging in.")
	fs.DurationVar(&f.dialTimeout, "dial-timeout", 2*time.Second, "How long a connection may take.")
	fs.DurationVar(&f.commandTimeout, "command-timeout", 0, "How long all of it may take. 0 is any time.")
	fs.DurationVar(&f.keepaliveTime, "keepalive-time", 10*time.Second, "After how much silence the server is asked whether it is there.")
	fs.DurationVar(&f.keepaliveExpiry, "keepalive-timeout", 6*time.Second, "How long it has to answer that.")
	return fs
}

// environment sets the flags that are not given from ETCDCTL_* variables.
func (f *saveFlags) environment(fs *flag.FlagSet, environ []string) (err error) {
	given := make(map[string]bool)
	fs.Visit(func(g *flag.Flag) { given[g.Name] = true })
	values := make(map[string]string)
	for _, pair := range environ {
		if name, value, ok := strings.Cut(pair, "="); ok {
			values[name] = value
		}
	}
	fs.VisitAll(func(g *flag.Flag) {
		name := "ETCDCTL_" + strings.ToUpper(strings.ReplaceAll(g.Name, "-", "_"))
		if value := values[name]; value != "" && !given[g.Name] {
			if serr := g.Value.Set(value); serr != nil {
				err = errors.Join(err, fmt.Errorf("%s=%q: %w", name, value, serr))
			}
		}
	})
	return err
}

func snapshotSave(args, environ []string, stdout, stderr io.Writer) int {
	var f saveFlags
	fs := f.set()
	file, code, ok := parseFile(fs, args, stdout, stderr)
	if !ok {
		return code
	}
	if err := f.environment(fs, environ); err != nil {
		fmt.Fprintf(stderr, "%s: %s\n", verbSave, oneLine(err))
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(bg, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if f.commandTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.commandTimeout)
		defer cancel()
	}
	version, err := f.save(ctx, file)
	if err != nil {
		return verbSave.fail(stderr, err)
	}
	fmt.Fprintf(stdout, "Snapshot saved at %s\n", file)
	if version != "" {
		fmt.Fprintf(stdout, "Server version %s\n", version)
	}
	return exitOK
}

// save writes FILE.part, and gives it its name when it is whole and durable.
func (f *saveFlags) save(ctx context.Context, file string) (version string, err error) {
	conn, err := f.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if ctx, err = f.login(ctx, conn); err != nil {
		return "", err
	}
	stream, err := pb.NewMaintenanceClient(conn).Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return "", err
	}
	part := file + ".part"
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(part)
		}
	}()
	version, err = receive(stream, out)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return "", err
	}
	if err := os.Rename(part, file); err != nil {
		return "", err
	}
	return version, vfs.OS.SyncDir(filepath.Dir(file))
}

// login answers a context whose calls have the token of the user that the flags name, if they name one. As etcdctl's client does, it
// goes on without a token where auth is off.
func (f *saveFlags) login(ctx context.Context, conn *grpc.ClientConn) (context.Context, error) {
	token := f.jwt
	if token == "" && f.user != "" {
		name, password := f.user, f.password
		if password == "" {
			var given bool
			if name, password, given = strings.Cut(f.user, ":"); !given {
				return nil, fmt.Errorf("the password of user %s is not given: neither --user NAME:PASSWORD nor --password", name)
			}
		}
		r, err := pb.NewAuthClient(conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: name, Password: password})
		if errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled) {
			return ctx, nil
		}
		if err != nil {
			return nil, err
		}
		token = r.Token
	}
	if token == "" {
		return ctx, nil
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token), nil
}

// receive writes the stream, and compares the file with the checksum that is at its end.
func receive(stream pb.Maintenance_SnapshotClient, out io.Writer) (version string, err error) {
	w := &trailing{sum: sha256.New()}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		if _, err := out.Write(r.Blob); err != nil {
			return "", err
		}
		w.add(r.Blob)
		version = r.Version
	}
	if string(w.sum.Sum(nil)) != string(w.tail) {
		return "", errors.New("what the server sent does not have the checksum at its end: it is not whole")
	}
	return version, nil
}

// trailing sums all that is added but the last bytes, which are a sum.
type trailing struct {
	sum  hash.Hash
	tail []byte
}

func (t *trailing) add(b []byte) {
	t.tail = append(t.tail, b...)
	if n := len(t.tail) - sha256.Size; n > 0 {
		t.sum.Write(t.tail[:n])
		t.tail = append(t.tail[:0], t.tail[n:]...)
	}
}

// dial connects to the endpoint: with TLS if it is an https or unixs URL, or no URL and there is something to set up TLS with.
func (f *saveFlags) dial() (*grpc.ClientConn, error) {
	if strings.Contains(f.endpoint, ",") {
		return nil, fmt.Errorf("a snapshot is that of one member, and --endpoints names more: %s", f.endpoint)
	}
	scheme, address, isURL := strings.Cut(f.endpoint, "://")
	if !isURL {
		scheme, address = "", f.endpoint
	}
	secure := f.cacert != "" || f.cert != "" || f.key != "" || f.skipVerify
	target := "dns:///" + address
	switch scheme {
	case "":
	case "http":
		secure = false
	case "https":
		secure = true
	case "unix", "unixs":
		target, secure = "unix:"+address, scheme == "unixs"
	default:
		return nil, fmt.Errorf("endpoint %s: unknown scheme %q", f.endpoint, scheme)
	}
	creds := insecure.NewCredentials()
	if secure {
		config, err := f.tls()
		if err != nil {
			return nil, err
		}
		creds = credentials.NewTLS(config)
	}
	return grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: f.dialTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: f.keepaliveTime, Timeout: f.keepaliveExpiry}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
}

func (f *saveFlags) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.skipVerify}
	if f.cacert != "" {
		pem, err := os.ReadFile(f.cacert)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", f.cacert)
		}
	}
	if f.cert != "" || f.key != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
