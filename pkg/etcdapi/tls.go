package etcdapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// The two protocols of the TLS handshake's ALPN.
const (
	protoHTTP1 = "http/1.1"
	protoHTTP2 = "h2"
)

// TLSOptions say how an endpoint identifies itself and whom it lets in. The
// names are those of etcd's flags.
type TLSOptions struct {
	CertFile, KeyFile             string
	ClientCertFile, ClientKeyFile string // what this member shows as a client; empty: the same as a server
	TrustedCAFile                 string // whoever connects needs a certificate of one of these
	CRLFile                       string // DER or PEM
	ClientCertAuth                bool   // without TrustedCAFile: any CA of the host
	AllowedCNs                    []string
	AllowedHostnames              []string
	CipherSuites                  []uint16 // of TLS 1.2; empty: Go's choice
	MinVersion, MaxVersion        uint16   // 0: TLS 1.2, and Go's highest
	VerifyClientAddress           bool     // a client's certificate has to name the address it comes from, if it names any
	SelfSigned                    bool     // of SelfCert: connections to others are encrypted and do not ask who they are
}

// Empty says whether there is no certificate, and so no TLS.
func (o TLSOptions) Empty() bool { return o.CertFile == "" && o.KeyFile == "" }

// Validate reports everything that is wrong with the options themselves; the
// files are read by NewTLS.
func (o TLSOptions) Validate() error {
	var errs []error
	if o.CertFile == "" || o.KeyFile == "" {
		errs = append(errs, fmt.Errorf("KeyFile and CertFile must both be present[key: %v, cert: %v]", o.KeyFile, o.CertFile))
	}
	if (o.ClientKeyFile == "") != (o.ClientCertFile == "") {
		errs = append(errs, fmt.Errorf("ClientKeyFile and ClientCertFile must both be present or both absent: key: %v, cert: %v]", o.ClientKeyFile, o.ClientCertFile))
	}
	if len(o.AllowedCNs) > 0 && len(o.AllowedHostnames) > 0 {
		errs = append(errs, fmt.Errorf("AllowedCNs and AllowedHostnames are mutually exclusive (cns=%q, hostnames=%q)", o.AllowedCNs, o.AllowedHostnames))
	}
	if o.MaxVersion != 0 && o.MinVersion > o.MaxVersion {
		errs = append(errs, fmt.Errorf("min version (%s) is greater than max version (%s)", tls.VersionName(o.MinVersion), tls.VersionName(o.MaxVersion)))
	}
	return errors.Join(errs...)
}

// TLS is the server side of TLS, kept up to date with its files. Each handshake
// looks at the files' status (a few microseconds beside the millisecond of the
// handshake) and reads them again when one has changed. Files that cannot be
// used, such as a certificate whose key is not written yet, leave the last good
// ones in place; the failure is told once per change.
type TLS struct {
	o        TLSOptions
	onReload func(err error)
	current  atomic.Pointer[tlsMaterial]
	mu       sync.Mutex  // one reload at a time; the others go on with current
	tried    []fileStamp // under mu: the files of the last reload that failed
}

// tlsMaterial is what was read from one state of the files; immutable.
type tlsMaterial struct {
	stamps []fileStamp
	cert   tls.Certificate
	// clientCert is of ClientCertFile, if there is one.
	clientCert tls.Certificate
	cas        *x509.CertPool
	revoked    map[string]bool // serial numbers
}

// fileStamp is the part of a file's status that changes when its content does.
type fileStamp struct {
	path  string
	info  os.FileInfo
	mtime time.Time
	size  int64
}

// NewTLS reads the files. onReload is told of every later reload, nil for one
// that took effect; it may be nil.
func NewTLS(o TLSOptions, onReload func(err error)) (*TLS, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if onReload == nil {
		onReload = func(error) {}
	}
	t := &TLS{o: o, onReload: onReload}
	m, err := t.load()
	if err != nil {
		return nil, err
	}
	t.current.Store(m)
	return t, nil
}

// alpn is what one client offered, by which gRPC and HTTP share an endpoint.
type alpn struct {
	http1, http2 bool
}

// grpcAlone says that the client can be nothing but a gRPC client.
func (a alpn) grpcAlone() bool { return a.http2 && !a.http1 }

// ServerConfig is the configuration for one connection to an endpoint. What the
// client offers is left in offered, if that is not nil.
//
// With both gRPC and HTTP on the endpoint, a client that offers h2 alone is a
// gRPC client. One that offers h2 and http/1.1 is most likely a browser, curl or
// Prometheus, but may be a gRPC client with a carelessly shared configuration:
// it gets h2, as from etcd, and each request is looked at. One that offers
// http/1.1 or nothing is an HTTP client.
func (t *TLS) ServerConfig(useGRPC, useHTTP bool, offered *alpn) *tls.Config {
	forHello := func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		a := alpn{slices.Contains(hello.SupportedProtos, protoHTTP1), slices.Contains(hello.SupportedProtos, protoHTTP2)}
		if offered != nil {
			*offered = a
		}
		var protos []string
		switch {
		case useGRPC && (a.http2 || !useHTTP):
			protos = []string{protoHTTP2}
		case a.http1 || a.http2:
			protos = []string{protoHTTP1}
		}
		c := t.config(t.latest(), protos)
		if t.o.VerifyClientAddress {
			verify := c.VerifyConnection
			c.VerifyConnection = func(cs tls.ConnectionState) error {
				if err := verify(cs); err != nil || len(cs.PeerCertificates) == 0 {
					return err
				}
				return verifyAddress(hello.Context(), cs.PeerCertificates[0], hello.Conn.RemoteAddr())
			}
		}
		return c, nil
	}
	return &tls.Config{MinVersion: t.minVersion(), GetConfigForClient: forHello}
}

func (t *TLS) minVersion() uint16 {
	if t.o.MinVersion == 0 {
		return tls.VersionTLS12
	}
	return t.o.MinVersion
}

func (t *TLS) config(m *tlsMaterial, protos []string) *tls.Config {
	c := &tls.Config{
		Certificates: []tls.Certificate{m.cert},
		ClientCAs:    m.cas,
		MinVersion:   t.minVersion(),
		MaxVersion:   t.o.MaxVersion,
		CipherSuites: t.o.CipherSuites,
		NextProtos:   protos,
		// A resumed session would carry a client's old verdict past a new CA or
		// revocation list. Clients here keep their connections for days.
		SessionTicketsDisabled: true,
		VerifyConnection:       func(cs tls.ConnectionState) error { return t.verify(m, cs) },
	}
	if t.o.TrustedCAFile != "" || t.o.ClientCertAuth {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c
}

// verify is asked after the chain was verified.
func (t *TLS) verify(m *tlsMaterial, cs tls.ConnectionState) error {
	if !t.allowed(cs) {
		return errors.New("client certificate authentication failed")
	}
	for _, c := range cs.PeerCertificates {
		if m.revoked[serialKey(c.SerialNumber)] {
			return fmt.Errorf("transport: certificate serial %x revoked", c.SerialNumber.Bytes())
		}
	}
	return nil
}

// allowed checks the names of the client's certificate, where names are asked
// for.
func (t *TLS) allowed(cs tls.ConnectionState) bool {
	if len(t.o.AllowedCNs) == 0 && len(t.o.AllowedHostnames) == 0 {
		return true
	}
	for _, chain := range cs.VerifiedChains {
		if len(chain) == 0 {
			continue
		}
		if slices.Contains(t.o.AllowedCNs, chain[0].Subject.CommonName) {
			return true
		}
		for _, h := range t.o.AllowedHostnames {
			if chain[0].VerifyHostname(h) == nil {
				return true
			}
		}
	}
	return false
}

// latest is the material of the files as they are now, or the last good one.
func (t *TLS) latest() *tlsMaterial {
	m := t.current.Load()
	if !t.mu.TryLock() {
		return m
	}
	defer t.mu.Unlock()
	m = t.current.Load()
	now := stampFiles(t.files())
	if sameFiles(m.stamps, now) {
		t.tried = nil
		return m
	}
	if sameFiles(t.tried, now) {
		return m
	}
	fresh, err := t.load()
	if err != nil {
		t.tried = now
		t.onReload(fmt.Errorf("reload TLS files: %w", err))
		return m
	}
	t.tried = nil
	t.current.Store(fresh)
	t.onReload(nil)
	return fresh
}

func (t *TLS) files() []string {
	var files []string
	for _, f := range []string{t.o.CertFile, t.o.KeyFile, t.o.ClientCertFile, t.o.ClientKeyFile, t.o.TrustedCAFile, t.o.CRLFile} {
		if f != "" {
			files = append(files, f)
		}
	}
	return files
}

// load reads every file. The stamps are taken first, so a file that changes
// under the read is read again at the next handshake.
func (t *TLS) load() (*tlsMaterial, error) {
	m := &tlsMaterial{stamps: stampFiles(t.files())}
	var err error
	if m.cert, err = tls.LoadX509KeyPair(t.o.CertFile, t.o.KeyFile); err != nil {
		return nil, fmt.Errorf("load certificate %s: %w", t.o.CertFile, err)
	}
	if t.o.ClientCertFile != "" {
		if m.clientCert, err = tls.LoadX509KeyPair(t.o.ClientCertFile, t.o.ClientKeyFile); err != nil {
			return nil, fmt.Errorf("load certificate %s: %w", t.o.ClientCertFile, err)
		}
	}
	if t.o.TrustedCAFile != "" {
		if m.cas, err = loadCAs(t.o.TrustedCAFile); err != nil {
			return nil, fmt.Errorf("load trusted CA file %s: %w", t.o.TrustedCAFile, err)
		}
	}
	if t.o.CRLFile != "" {
		if m.revoked, err = loadCRL(t.o.CRLFile); err != nil {
			return nil, fmt.Errorf("load revocation list %s: %w", t.o.CRLFile, err)
		}
	}
	return m, nil
}

func loadCAs(path string) (*x509.CertPool, error) {
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool, n := x509.NewCertPool(), 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		pool.AddCert(cert)
		n++
	}
	if n == 0 {
		return nil, errors.New("no certificate in it")
	}
	return pool, nil
}

func loadCRL(path string) (map[string]bool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var lists [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		lists = append(lists, block.Bytes)
	}
	if len(lists) == 0 {
		lists = [][]byte{data}
	}
	revoked := make(map[string]bool)
	for _, der := range lists {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, err
		}
		for _, e := range list.RevokedCertificateEntries {
			revoked[serialKey(e.SerialNumber)] = true
		}
	}
	return revoked, nil
}

func serialKey(n *big.Int) string { return string(n.Bytes()) }

// stampFiles follows links: a mounted secret is replaced by swapping one. A
// file that is not there has no info.
func stampFiles(paths []string) []fileStamp {
	stamps := make([]fileStamp, len(paths))
	for i, p := range paths {
		stamps[i].path = p
		if info, err := os.Stat(p); err == nil {
			stamps[i].info, stamps[i].mtime, stamps[i].size = info, info.ModTime(), info.Size()
		}
	}
	return stamps
}

func sameFiles(a, b []fileStamp) bool {
	return slices.EqualFunc(a, b, func(x, y fileStamp) bool {
		if x.info == nil || y.info == nil {
			return x.info == nil && y.info == nil && x.path == y.path
		}
		return x.path == y.path && x.size == y.size && x.mtime.Equal(y.mtime) && os.SameFile(x.info, y.info)
	})
}

// frontCredentials is the view gRPC has of connections that a Front has already
// brought through their handshake: it only tells what that found out.
type frontCredentials struct{}

// FrontCredentials are the credentials of a grpc.Server behind a Front, plain
// and TLS endpoints alike. peer.AuthInfo is a tlsInfo on TLS, else a plainInfo;
// of a call that came by way of net/http a credentials.TLSInfo.
func FrontCredentials() credentials.TransportCredentials { return frontCredentials{} }

// plainInfo is the AuthInfo of a connection without TLS.
type plainInfo struct {
	credentials.CommonAuthInfo
	conn net.Conn
}

// tlsInfo is the AuthInfo of a connection with TLS.
type tlsInfo struct {
	credentials.TLSInfo
	conn net.Conn
}

// AuthType implements credentials.AuthInfo.
func (plainInfo) AuthType() string { return "insecure" }

func (frontCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t, ok := c.(*tls.Conn)
	if !ok {
		return c, plainInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, c}, nil
	}
	return c, tlsInfo{credentials.TLSInfo{
		State:          t.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, c}, nil
}

func (frontCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("front credentials are for servers")
}

func (frontCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "front"}
}

func (c frontCredentials) Clone() credentials.TransportCredentials { return c }

func (frontCredentials) OverrideServerName(string) error { return nil }
