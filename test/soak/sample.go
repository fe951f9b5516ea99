package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/kubeshim/shim/test/internal/member"
)

// resourcesUsed are in bytes.
type resourcesUsed struct {
	RSS  int64 `json:"rss_bytes"`
	Heap int64 `json:"heap_bytes"` // spans that hold objects
	WAL  int64 `json:"wal_bytes"`  // on disk
	DB   int64 `json:"db_bytes"`   // on disk
	Disk int64 `json:"disk_bytes"` // the whole data dir
	// InUse is what Status says of the database's pages.
	InUse int64 `json:"db_in_use_bytes"`
}

// flat are those that must not grow from round to round, by name.
func (r resourcesUsed) flat() map[string]int64 {
	return map[string]int64{"RSS": r.RSS, "heap": r.Heap, "disk": r.Disk, "log": r.WAL}
}

// sampler looks at the server now and then.
type sampler struct {
	s    *soak
	seen []resourcesUsed
	heap int64
}

// scrapeEvery of these looks reads /metrics, which is work for the server.
const scrapeEvery = 15

func newSampler(s *soak) *sampler { return &sampler{s: s} }

func (m *sampler) run(ctx context.Context) error {
	for i := 0; ; i++ {
		r, err := m.s.look(ctx)
		if err == nil && i%scrapeEvery == 0 {
			m.heap, err = m.s.metric(ctx, "go_memstats_heap_inuse_bytes")
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		r.Heap = m.heap
		m.seen = append(m.seen, r)
		pause(ctx, m.s.length/600)
	}
}

// look reads what the server uses now.
func (s *soak) look(ctx context.Context) (r resourcesUsed, err error) {
	if r.RSS, err = s.server.RSS(); err != nil {
		return r, err
	}
	for _, d := range []struct {
		path string
		into *int64
	}{{"member/wal", &r.WAL}, {"member/snap", &r.DB}, {"", &r.Disk}} {
		if *d.into, err = member.Allocated(filepath.Join(s.server.Dir, d.path)); err != nil {
			return r, err
		}
	}
	status, err := pb.NewMaintenanceClient(s.api.conn[services]).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return r, err
	}
	r.InUse = status.DbSizeInUse
	return r, nil
}

// metric is one line of /metrics.
func (s *soak) metric(ctx context.Context, name string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.server.Client+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		if rest, ok := strings.CutPrefix(in.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			return int64(v), err
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// median is of each figure by itself.
func (m *sampler) median() (r resourcesUsed) {
	return medianOf(m.seen)
}

func medianOf(seen []resourcesUsed) (r resourcesUsed) {
	if len(seen) == 0 {
		return r
	}
	of := func(field func(resourcesUsed) int64) int64 {
		var all []int64
		for _, x := range seen {
			all = append(all, field(x))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return resourcesUsed{
		RSS:   of(func(x resourcesUsed) int64 { return x.RSS }),
		Heap:  of(func(x resourcesUsed) int64 { return x.Heap }),
		WAL:   of(func(x resourcesUsed) int64 { return x.WAL }),
		DB:    of(func(x resourcesUsed) int64 { return x.DB }),
		Disk:  of(func(x resourcesUsed) int64 { return x.Disk }),
		InUse: of(func(x resourcesUsed) int64 { return x.InUse }),
	}
}
