package measure

import (
	"context"
	"time"
)

// Pacer tells when the operations of an open loop are due: at a steady rate,
// whatever the answers do.
type Pacer struct {
	rate float64 // per second
	now  func() time.Time
	wait func(context.Context, time.Duration) error
}

// NewPacer has rate operations due in each second.
func NewPacer(rate float64) Pacer {
	return Pacer{rate: rate, now: time.Now, wait: func(ctx context.Context, d time.Duration) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	}}
}

// Run calls fire(0), fire(1)... each at its time, which it is told, until stop is
// closed, and answers how late each was: a client that cannot keep up shows
// there. An operation that is late does not move those behind it.
func (p Pacer) Run(ctx context.Context, stop <-chan struct{}, fire func(i int, due time.Time)) (late []time.Duration, err error) {
	begin := p.now()
	for i := 0; ; i++ {
		due := begin.Add(time.Duration(float64(i) / p.rate * float64(time.Second)))
		if d := due.Sub(p.now()); d > 0 {
			if err := p.wait(ctx, d); err != nil {
				return late, err
			}
		}
		select {
		case <-stop:
			return late, nil
		case <-ctx.Done():
			return late, ctx.Err()
		default:
		}
		late = append(late, max(0, p.now().Sub(due)))
		fire(i, due)
	}
}
