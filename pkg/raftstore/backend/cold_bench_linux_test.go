package backend

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sys/unix"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// BenchmarkColdRows reads rows of 8 KiB that nothing has in memory, in the order of a list whose keys were not written in their own:
// from the mapping, as bbolt does, from the pages one by one, and with 4 MiB told ahead.
func BenchmarkColdRows(b *testing.B) {
	const n, stride = 20_000, 20
	m := &machine{t: b, state: mvcc.New(mvcc.Options{})}
	db, err := Open(filepath.Join(b.TempDir(), "snap", "db"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	m.db = db
	for i := range n {
		m.apply(&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: fmt.Appendf(nil, "/registry/pods/default/pod-%06d", i), Value: make([]byte, 8<<10)}})
		if i%2000 == 1999 {
			m.checkpoint()
		}
	}
	var rows []mvcc.RowAhead
	for at := range stride {
		for i := at; i < n; i += stride {
			rows = append(rows, mvcc.RowAhead{Row: mvcc.RowKey{Main: mvcc.Revision(2 + i)}, Bytes: 8 << 10})
		}
	}
	run := func(name string, read func(r *rowReader, rows []mvcc.RowAhead)) {
		b.Run(name, func(b *testing.B) {
			used := cpu()
			for range b.N {
				b.StopTimer()
				uncache(b, db)
				r, err := db.Rows().Begin()
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				read(r.(*rowReader), rows)
				b.StopTimer()
				r.Close()
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64((cpu()-used).Nanoseconds())/1e3/float64(n*b.N), "cpu-us/row")
		})
	}
	var buf []byte
	onebyone := func(r *rowReader, rows []mvcc.RowAhead) {
		for _, row := range rows {
			if buf, err = r.AppendRow(buf[:0], row.Row); err != nil {
				b.Fatal(err)
			}
		}
	}
	run("mapping", func(r *rowReader, rows []mvcc.RowAhead) {
		var key []byte
		for _, row := range rows {
			key = row.Row.Append(key[:0])
			buf = append(buf[:0], r.tx.Bucket(bucketKey).Get(key)...)
		}
	})
	run("pages", onebyone)
	run("ahead", func(r *rowReader, rows []mvcc.RowAhead) {
		const window = 256
		r.ReadAhead(append([]mvcc.RowAhead(nil), rows[:2*window]...))
		for at := 0; at < len(rows); at += window {
			if next := min(at+2*window, len(rows)); at > 0 && at+window < next {
				r.ReadAhead(append([]mvcc.RowAhead(nil), rows[at+window:next]...))
			}
			onebyone(r, rows[at:min(at+window, len(rows))])
		}
	})
}

// uncache has the kernel forget what it has of the file.
func uncache(t testing.TB, db *DB) {
	t.Helper()
	f, err := os.Open(db.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	forget(db.current.Info().Data, db.Size())
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}
