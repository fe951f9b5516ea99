package password

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

func TestHashAndCheck(t *testing.T) {
	h, ctx := NewHasher(CostMin), t.Context()
	hash, err := h.Hash(ctx, "secret")
	if err != nil {
		t.Fatal(err)
	}
	if cost, err := bcrypt.Cost(hash); err != nil || cost != CostMin {
		t.Errorf("cost %d, %v", cost, err)
	}
	if err := h.Check(ctx, hash, "secret"); err != nil {
		t.Errorf("right password: %v", err)
	}
	for _, c := range []struct {
		hash     []byte
		password string
	}{{hash, "Secret"}, {hash, ""}, {nil, "secret"}, {nil, ""}, {[]byte("no hash"), "secret"}} {
		if err := h.Check(ctx, c.hash, c.password); !errors.Is(err, ErrMismatch) {
			t.Errorf("check of %q against %q: %v", c.password, c.hash, err)
		}
	}
	for n, want := range map[int]error{72: nil, 73: bcrypt.ErrPasswordTooLong} {
		long := strings.Repeat("x", n)
		if _, err := h.Hash(ctx, long); err != want || Validate(long) != want {
			t.Errorf("%d bytes: %v, %v", n, err, Validate(long))
		}
	}
}

// TestCost: what bcrypt does not know is the default.
func TestCost(t *testing.T) {
	if CostMin != bcrypt.MinCost || CostMax != bcrypt.MaxCost || CostDefault != bcrypt.DefaultCost {
		t.Error("the costs are not bcrypt's")
	}
	for cost, want := range map[int]int{0: CostDefault, CostMin - 1: CostDefault, CostMin: CostMin, 12: 12, CostMax: CostMax, CostMax + 1: CostDefault} {
		if got := NewHasher(cost).cost; got != want {
			t.Errorf("cost %d became %d, not %d", cost, got, want)
		}
	}
}

// TestTurns: no more run than there are places, all come to their turn, and who gives up while waiting has not run.
func TestTurns(t *testing.T) {
	h := NewHasher(CostMin)
	places := max(1, runtime.GOMAXPROCS(0)/2)
	var running, most atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			err := h.turn(t.Context(), func() {
				n := running.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				runtime.Gosched()
				running.Add(-1)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := int(most.Load()); n < 1 || n > places {
		t.Errorf("%d ran at once, of %d places", n, places)
	}

	for range places {
		h.turns <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.turn(ctx, func() { t.Error("ran without a place") }); !errors.Is(err, context.Canceled) {
		t.Errorf("turn of a caller that is gone: %v", err)
	}
	<-h.turns
	for range 100 { // a place is free, but nobody is there to want the answer
		if err := h.turn(ctx, func() { t.Error("ran for nobody") }); !errors.Is(err, context.Canceled) {
			t.Errorf("turn of a caller that is gone: %v", err)
		}
	}
}
