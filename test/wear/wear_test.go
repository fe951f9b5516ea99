package main

import (
	"math"
	"testing"
	"time"
)

// TestWear plays a quarter of an hour of two nodes on shim: the rows are those of the cluster, all that is counted was written, and
// the clock of the hour has brought a compaction and no checkpoint yet.
func TestWear(t *testing.T) {
	const nodes, length = 2, 15 * time.Minute
	r, err := wear("shim", t.TempDir(), nodes, length, false)
	if err != nil {
		t.Fatal(err)
	}
	want := length.Seconds() * (perSecond(nodes) - 2/masterEvery.Seconds() - 1/grantEvery.Seconds()) // but for leases
	if math.Abs(float64(r.rows)-want) > want/20 {
		t.Errorf("%d rows, a cluster writes %.0f", r.rows, want)
	}
	if r.used.bytes < 512*int64(r.rows) || r.used.syncs < int64(r.rows) || r.used.syncs > 2*int64(r.rows) {
		t.Errorf("%+v: too little, or more fsyncs than writes", r)
	}
}
