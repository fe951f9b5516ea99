package etcdapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
)

// ClientConfig is the configuration of connections to other members. host is
// the name or address that their certificates have to be for; "" is for callers
// that fill it in for each connection, as grpc and net/http do. What is shown is
// the certificate of ClientCertFile, or the one the server side shows. Allowed
// names and the revocation list count for the other side's certificate in both
// directions. Certificate and list are those of each handshake's moment; the CAs
// those of now, so who wants to learn of new ones asks for each connection.
func (t *TLS) ClientConfig(host string) *tls.Config {
	c := &tls.Config{
		ServerName:   host,
		RootCAs:      t.latest().cas,
		MinVersion:   t.minVersion(),
		MaxVersion:   t.o.MaxVersion,
		CipherSuites: t.o.CipherSuites,
		// Shown to whichever authorities the server names: it may have more.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			m := t.latest()
			if t.o.ClientCertFile != "" {
				return &m.clientCert, nil
			}
			return &m.cert, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error { return t.verify(t.latest(), cs) },
	}
	if t.o.SelfSigned { // encrypts, and says nothing about who is there
		c.InsecureSkipVerify, c.VerifyConnection = true, nil
	}
	return c
}

// verifyAddress checks that the client's certificate, if it names hosts at all,
// names the one that the connection comes from. Names are looked up in both
// directions; that is what etcd asks of other members.
func verifyAddress(ctx context.Context, cert *x509.Certificate, remote net.Addr) error {
	if len(cert.IPAddresses) == 0 && len(cert.DNSNames) == 0 {
		return nil
	}
	host, _, err := net.SplitHostPort(remote.String())
	if err != nil {
		return err
	}
	if len(cert.IPAddresses) > 0 {
		err := cert.VerifyHostname(host)
		if err == nil || len(cert.DNSNames) == 0 {
			return err
		}
	}
	return verifyName(ctx, cert.DNSNames, host)
}

func verifyName(ctx context.Context, names []string, host string) error {
	isOne := func(found string) bool {
		found = strings.TrimSuffix(found, ".")
		return slices.ContainsFunc(names, func(name string) bool {
			domain, wild := strings.CutPrefix(name, "*")
			return name == found || wild && strings.HasPrefix(domain, ".") && strings.HasSuffix(found, domain)
		})
	}
	found, err := net.DefaultResolver.LookupAddr(ctx, host)
	if slices.ContainsFunc(found, isOne) {
		return nil
	}
	for _, name := range names {
		if strings.HasPrefix(name, "*.") {
			continue
		}
		addrs, lerr := net.DefaultResolver.LookupHost(ctx, name)
		if slices.Contains(addrs, host) {
			return nil
		}
		if lerr != nil {
			err = lerr
		}
	}
	if err != nil {
		return fmt.Errorf("tls: %q does not match any of DNSNames %q (%w)", host, names, err)
	}
	return fmt.Errorf("tls: %q does not match any of DNSNames %q", host, names)
}
