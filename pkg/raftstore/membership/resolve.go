package membership

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// Resolver turns host:port, where host is a name, into address:port.
type Resolver func(ctx context.Context, hostport string) (string, error)

// SystemResolver asks the system, and takes the first answer.
func SystemResolver(ctx context.Context, hostport string) (string, error) {
	host, service, err := net.SplitHostPort(hostport)
	if err != nil {
		return "", err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return "", err
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host) // an address answers itself
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(ips[0].String(), strconv.Itoa(port)), nil
}

// sameURLs says whether two sets of URLs lead to the same places. Names are resolved only when the URLs differ as they are. A name
// that cannot be resolved is tried again until ctx ends: at the start of a cluster the DNS records of its hosts may be on their way.
// err tells why they are not the same.
func sameURLs(ctx context.Context, resolve Resolver, a, b []string) (bool, error) {
	if len(a) != len(b) {
		return false, fmt.Errorf("len(%q) != len(%q)", a, b)
	}
	left, err := parseAll(a)
	if err != nil {
		return false, err
	}
	right, err := parseAll(b)
	if err != nil {
		return false, err
	}
	if slices.EqualFunc(left, right, sameURL) {
		return true, nil
	}
	if err := resolveAll(ctx, resolve, left); err != nil {
		return false, err
	}
	if err := resolveAll(ctx, resolve, right); err != nil {
		return false, err
	}
	for i := range left {
		if !sameURL(left[i], right[i]) {
			return false, fmt.Errorf("resolved urls: %q != %q", left[i].String(), right[i].String())
		}
	}
	return true, nil
}

// parseAll returns the URLs in order, so that two sets can be compared side by side.
func parseAll(texts []string) (types.URLs, error) {
	urls := make(types.URLs, 0, len(texts))
	for _, s := range texts {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("failed to parse string to URL: %q", s)
		}
		urls = append(urls, *u)
	}
	urls.Sort()
	return urls, nil
}

// sameURL compares what decides where a connection goes; an IP address may be written in several ways.
func sameURL(a, b url.URL) bool {
	return a.Scheme == b.Scheme && canonicalHost(a.Host) == canonicalHost(b.Host) && a.Path == b.Path
}

func canonicalHost(hostport string) string {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return hostport
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
	}
	return net.JoinHostPort(host, port)
}

// resolveAll replaces names by addresses, and sorts again.
func resolveAll(ctx context.Context, resolve Resolver, urls types.URLs) error {
	for i, u := range urls {
		if u.Scheme == "unix" || u.Scheme == "unixs" || u.Hostname() == "localhost" {
			continue
		}
		host, err := resolveHost(ctx, resolve, u.Host)
		if err != nil {
			return fmt.Errorf("failed to resolve %q (%w)", u.String(), err)
		}
		urls[i].Host = host
	}
	urls.Sort()
	return nil
}

func resolveHost(ctx context.Context, resolve Resolver, hostport string) (string, error) {
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		host, err := resolve(ctx, hostport)
		if err == nil {
			return host, nil
		}
		select {
		case <-time.After(resolveRetryInterval):
		case <-ctx.Done():
			return "", err
		}
	}
}
