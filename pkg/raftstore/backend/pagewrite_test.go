package backend

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// TestPageWriter: bbolt finds in a file that was written by pages what was added, nothing wrong in it, and can change all of it.
func TestPageWriter(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, rows := range []int{0, 1, 2, 3, 60, 61, 62, 63, 64, 65, 100, rng.IntN(3000), 5000} {
		pageBytes := 1 << (10 + rng.IntN(3))
		valueBytes := 1 + rng.IntN(pageBytes) // from many on a page to one that is longer
		t.Run(fmt.Sprintf("rows=%d,page=%d,value=%d", rows, pageBytes, valueBytes), func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "db")
			want := writePages(t, rng, name, rows, pageBytes, valueBytes)
			if at, reason := locate(name); reason != "" {
				t.Fatalf("offset %d: %s", at, reason)
			}
			h, err := bbolt.Open(name, fileMode, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			wantRows(t, h, want)
			for len(want) > 0 { // some go, some change, some are new
				err := h.Update(func(tx *bbolt.Tx) error {
					b := tx.Bucket(bucketKey)
					gone, all := max(len(want)/3, 2), len(want)
					for k, v := range want {
						switch {
						case gone > 0:
							gone--
							delete(want, k)
							if err := b.Delete([]byte(k)); err != nil {
								return err
							}
						case rng.IntN(all) < 3:
							want[k] = v + v[:rng.IntN(len(v))]
							if err := b.Put([]byte(k), []byte(want[k])); err != nil {
								return err
							}
						}
					}
					return tx.Bucket(bucketMeta).Put([]byte("left"), binary.BigEndian.AppendUint64(nil, uint64(len(want))))
				})
				if err != nil {
					t.Fatal(err)
				}
				wantRows(t, h, want)
			}
		})
	}
}

// writePages writes a file with random rows.
func writePages(t *testing.T, rng *rand.Rand, name string, rows, pageBytes, valueBytes int) map[string]string {
	f, err := vfs.OS.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := newPageWriter(f, pageBytes)
	want := make(map[string]string)
	for i := range rows {
		key := encodeRevision(1)
		binary.BigEndian.PutUint64(key, uint64(i+1))
		value := bytes.Repeat([]byte{byte(i)}, 1+rng.IntN(valueBytes))
		if rng.IntN(500) == 0 {
			value = make([]byte, 5*pageBytes)
		}
		want[string(key)] = string(value)
		w.add(key, value)
		if rng.IntN(10) == 0 {
			if err := w.flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.finish([]bucketName{{bucketKey, 7}, {bucketMeta, 8}}); err != nil {
		t.Fatal(err)
	}
	return want
}

// wantRows checks the pages and the rows.
func wantRows(t *testing.T, h *bbolt.DB, want map[string]string) {
	t.Helper()
	err := h.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		b := tx.Bucket(bucketKey)
		if a, b := b.Sequence(), tx.Bucket(bucketMeta).Sequence(); a != 7 || b != 8 {
			t.Errorf("sequences of the buckets: %d, %d", a, b)
		}
		n := 0
		err := b.ForEach(func(k, v []byte) error {
			if n++; want[string(k)] != string(v) {
				t.Errorf("row %x of %d bytes, want %d", k, len(v), len(want[string(k)]))
			}
			return nil
		})
		if n != len(want) {
			t.Errorf("%d rows, want %d", n, len(want))
		}
		return err
	})
	if err != nil || t.Failed() {
		t.Fatal(err)
	}
}
