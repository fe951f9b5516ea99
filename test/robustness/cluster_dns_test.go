//go:build robustness

package robustness

import (
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kubeshim/shim/test/internal/netns"
)

// zone is the DNS of a test: addresses of hosts, and SRV records, which it counts the questions for. Names end with a dot.
type zone struct {
	mu       sync.Mutex
	services map[string][]dnsmessage.SRVResource
	hosts    map[string]netip.Addr
	asked    int
}

// serveZone answers at port 53 of a host until the test ends.
func serveZone(t *testing.T, at *netns.Host) *zone {
	t.Helper()
	z := &zone{services: make(map[string][]dnsmessage.SRVResource), hosts: make(map[string]netip.Addr)}
	c, err := at.ListenPacket("udp4", at.Addr(53))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { z.serve(c) })
	t.Cleanup(func() {
		_ = c.Close()
		serving.Wait()
	})
	return z
}

func (z *zone) serve(c net.PacketConn) {
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
}

func (z *zone) answer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	q := m.Questions[0]
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	add := func(body dnsmessage.ResourceBody) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: body})
	}
	records, isService := z.services[q.Name.String()]
	addr, isHost := z.hosts[q.Name.String()]
	switch {
	case q.Type == dnsmessage.TypeSRV:
		z.asked++
		for _, r := range records {
			add(&r)
		}
	case isHost && q.Type == dnsmessage.TypeA:
		add(&dnsmessage.AResource{A: addr.As4()})
	}
	if !isService && !isHost {
		m.RCode = dnsmessage.RCodeNameError
	}
	return m.Pack()
}

// offer adds a host, and a record of a service that it has.
func (z *zone) offer(service, host, addr string, port uint16) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.hosts[host] = netip.MustParseAddr(addr)
	z.services[service] = append(z.services[service], dnsmessage.SRVResource{Target: dnsmessage.MustNewName(host), Port: port})
}

// questions is how often a service was asked for.
func (z *zone) questions() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked
}
