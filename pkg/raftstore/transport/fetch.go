package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// FetchOptions are for FetchMembers; the zero value is usable.
type FetchOptions struct {
	// TLS is for https and unixs URLs.
	TLS *tls.Config
	// Dial opens connections; nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Fetched is what a running member answered.
type Fetched struct {
	URL     string
	Cluster uint64
	JSON    []byte
}

// membersPath is where members tell of their cluster, by HTTP.
const membersPath = "/members"

// FetchMembers asks the members behind the peer URLs, in turn, for the members of their cluster, and takes the first answer: etcd's GET
// /members, which etcd answers as well. Each URL has 10 s. It needs no Transport: a member asks before it has an ID.
func FetchMembers(ctx context.Context, urls []string, o FetchOptions) (Fetched, error) {
	var errs []error // a line per URL
	for _, url := range urls {
		got, err := fetch(ctx, url, o)
		if err == nil && got.Cluster == 0 {
			err = errors.New("answer without a cluster ID")
		}
		if err == nil {
			return got, nil
		}
		errs = append(errs, fmt.Errorf("%s%s: %w", url, membersPath, err))
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		errs = append(errs, ErrUnreachable)
	}
	return Fetched{}, errors.Join(errs...)
}

func fetch(ctx context.Context, url string, o FetchOptions) (Fetched, error) {
	a, err := parseURL(url)
	if err != nil {
		return Fetched{}, err
	}
	dial := o.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	scheme, protocols := "http", new(http.Protocols)
	protocols.SetHTTP1(true) // with HTTP/2 a member takes us for a stream of a peer
	if a.secure {
		scheme = "https"
	}
	client := http.Client{
		Timeout:       fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, a.network, a.address) },
			TLSClientConfig:   o.TLS,
			DisableKeepAlives: true,
			Protocols:         protocols,
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+a.host+membersPath, nil)
	if err != nil {
		return Fetched{}, fmt.Errorf("request: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return Fetched{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, fetchBytesMax+1))
	switch {
	case err != nil:
		return Fetched{}, fmt.Errorf("read answer: %w", err)
	case resp.StatusCode != http.StatusOK:
		return Fetched{}, fmt.Errorf("status %s", resp.Status)
	case len(body) > fetchBytesMax:
		return Fetched{}, fmt.Errorf("answer of more than %d bytes", fetchBytesMax)
	}
	id, _ := types.IDFromString(resp.Header.Get("X-Etcd-Cluster-ID"))
	return Fetched{URL: url, Cluster: uint64(id), JSON: body}, nil
}
