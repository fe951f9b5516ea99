package etcdapi

import "testing"

// TestTurnRests: a turn rests each time that enough was spent while the revision
// moves, goes on resting for a while, and not for ever.
func TestTurnRests(t *testing.T) {
	rev := int64(1)
	ts := newTurns(1, func() int64 { return rev })
	x := ts.take()
	looks := func(n int) (rests int) {
		for range n {
			if x.rests(turnSpendMax-1, ts.revision) {
				t.Fatal("rests before it has spent enough")
			}
			if x.rests(1, ts.revision) {
				rests++
			}
		}
		return rests
	}
	if n := looks(3 * turnStillMax); n != 0 {
		t.Fatalf("rests %d times, and nothing was ever written", n)
	}
	rev++
	if n := looks(3 * turnStillMax); n != turnStillMax {
		t.Fatalf("rests %d times behind a write, want %d", n, turnStillMax)
	}
	for range 100 {
		rev++
		if n := looks(turnStillMax / 2); n != turnStillMax/2 {
			t.Fatalf("rests %d times of %d beside writes", n, turnStillMax/2)
		}
	}
}
