package discovery

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"golang.org/x/net/dns/dnsmessage"
)

// zone answers DNS questions: SRV records by service name, addresses by host name, both with the dot at the end.
type zone struct {
	srv  map[string][]dnsmessage.SRVResource
	addr map[string]string
}

// serve answers over UDP and makes the zone the system's DNS until the test ends.
func (z zone) serve(t *testing.T) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer, err := z.answer(buf[:n]); err == nil {
				_, _ = c.WriteTo(answer, from)
			}
		}
	}()
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", c.LocalAddr().String())
	}}
}

func (z zone) answer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	q := m.Questions[0]
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
	add := func(body dnsmessage.ResourceBody) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: body})
	}
	records, isSRV := z.srv[q.Name.String()]
	addr, isHost := z.addr[q.Name.String()]
	switch {
	case isSRV && q.Type == dnsmessage.TypeSRV:
		for _, r := range records {
			add(&r)
		}
	case isHost && q.Type == dnsmessage.TypeA:
		add(&dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()})
	case !isSRV && !isHost:
		m.RCode = dnsmessage.RCodeNameError
	}
	return m.Pack()
}

func record(host string, port uint16) dnsmessage.SRVResource {
	return dnsmessage.SRVResource{Target: dnsmessage.MustNewName(host), Port: port}
}

func TestSRV(t *testing.T) {
	zone{
		srv: map[string][]dnsmessage.SRVResource{
			"_etcd-server._tcp.plain.example.":         {record("a.example.", 2380), record("b.example.", 2380), record("c.example.", 2381)},
			"_etcd-server-ssl._tcp.secure.example.":    {record("b.example.", 2380), record("a.example.", 2380)},
			"_etcd-server-ssl-k8s._tcp.named.example.": {record("a.example.", 2380)},
			"_etcd-server-ssl._tcp.both.example.":      {record("a.example.", 2380)},
			"_etcd-server._tcp.both.example.":          {record("b.example.", 2380)},
			"_etcd-server._tcp.others.example.":        {record("b.example.", 2380)},
			"_etcd-server._tcp.nowhere.example.":       {record("gone.example.", 2380)},
		},
		addr: map[string]string{"a.example.": "10.0.0.1", "b.example.": "10.0.0.2", "c.example.": "10.0.0.3"},
	}.serve(t)
	for _, c := range []struct{ domain, suffix, advertised, want, fails string }{
		{"plain.example", "", "http://10.0.0.1:2380", "m=http://a.example:2380,0=http://b.example:2380,1=http://c.example:2381", ""},
		{"secure.example", "", "https://a.example:2380", "0=https://b.example:2380,m=https://a.example:2380", ""},
		{"named.example", "k8s", "https://10.0.0.1:2380", "m=https://a.example:2380", ""},
		{"both.example", "", "https://10.0.0.1:2380", "m=https://a.example:2380,0=http://b.example:2380", ""},
		{"others.example", "", "http://10.0.0.1:2380", "", `cannot find local etcd member "m" in SRV records`},
		{"plain.example", "", "https://10.0.0.1:2380", "", `cannot find local etcd member "m" in SRV records`},
		{"nowhere.example", "", "http://10.0.0.1:2380", "", "error querying DNS SRV records for _etcd-server lookup gone.example."},
		{"unheard.example", "", "http://10.0.0.1:2380", "", "error querying DNS SRV records for _etcd-server-ssl lookup _etcd-server-ssl._tcp.unheard.example"},
	} {
		got, err := SRV("m", c.domain, c.suffix, types.MustNewURLs([]string{c.advertised}))
		if sorted(got) != sorted(c.want) || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
}

// sorted is a cluster by URL, with the numbers of unnamed members taken away: records of one priority come in random order.
func sorted(cluster string) string {
	if cluster == "" {
		return ""
	}
	m, err := types.NewURLsMap(cluster)
	if err != nil {
		return err.Error()
	}
	named := m["m"]
	delete(m, "m")
	return named.String() + " " + strings.Join(m.URLs(), " ")
}
