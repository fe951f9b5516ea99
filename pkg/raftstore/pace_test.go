package raftstore

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: large batches are held back for a while, small ones and the first large ones are not, and enough proposals end it.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pace{wake: make(chan struct{}, 1)}
		for range 100 {
			if p.holds(1) {
				t.Fatal("single proposals are held back")
			}
			p.proposed(1, 1)
		}
		for !p.pausing.Load() {
			p.proposed(30, 40)
		}
		began := time.Now()
		if !p.holds(1) || !p.holds(29) || p.holds(30) {
			t.Errorf("held back up to %d, want 30", p.enough.Load())
		}
		<-p.wake
		if p.holds(1) || time.Since(began) != batchPause {
			t.Errorf("held back, or for %v", time.Since(began))
		}
		for p.batch >= pausedBatchMin { // as by then nobody else is there
			if p.proposed(1, 1); p.pausing.Load() {
				<-p.wake
			}
		}
		if p.proposed(1, 1); p.holds(1) {
			t.Error("a single proposal is held back when the load is over")
		}
	})
}
