package measure

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, c := range []struct {
		of   []time.Duration
		q    float64
		want time.Duration
	}{
		{nil, 0.5, 0},
		{[]time.Duration{7}, 0.5, 7},
		{[]time.Duration{7}, 0.99, 7},
		{[]time.Duration{1, 2}, 0.5, 1},
		{[]time.Duration{1, 2, 3}, 0.5, 2},
		{hundred, 0, 1},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{hundred[:10], 0.99, 10},
	} {
		if got := Quantile(c.of, c.q); got != c.want {
			t.Errorf("quantile %v of %d values: %d, want %d", c.q, len(c.of), got, c.want)
		}
	}
}

// fakeTime is a clock that waits by moving on; each look at it takes a little.
type fakeTime struct {
	at   time.Time
	look time.Duration
}

func (c *fakeTime) pacer(rate float64) Pacer {
	return Pacer{rate: rate,
		now: func() time.Time { c.at = c.at.Add(c.look); return c.at },
		wait: func(_ context.Context, d time.Duration) error {
			c.at = c.at.Add(d)
			return nil
		}}
}

func TestPacerKeepsItsRate(t *testing.T) {
	c := &fakeTime{at: time.Unix(1000, 0)}
	begin, stop := c.at, make(chan struct{})
	var at []time.Duration
	late, err := c.pacer(200).Run(t.Context(), stop, func(i int, _ time.Time) {
		if i != len(at) {
			t.Errorf("operation %d after %d", i, len(at))
		}
		at = append(at, c.at.Sub(begin))
		switch i {
		case 10: // this one holds the loop up for 20 of the 5 ms steps
			c.at = c.at.Add(100 * time.Millisecond)
		case 40:
			close(stop)
		}
	})
	if err != nil || len(at) != 41 || len(late) != 41 {
		t.Fatalf("%d fired, %d known, %v", len(at), len(late), err)
	}
	for i, want := range map[int]time.Duration{0: 0, 10: 50 * time.Millisecond, 11: 150 * time.Millisecond, 29: 150 * time.Millisecond, 31: 155 * time.Millisecond, 40: 200 * time.Millisecond} {
		if at[i] != want {
			t.Errorf("operation %d at %v, want %v", i, at[i], want)
		}
	}
	if late[5] != 0 || late[11] != 95*time.Millisecond || late[31] != 0 {
		t.Errorf("late: %v", late)
	}
}

func TestPacerEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := &fakeTime{at: time.Unix(1000, 0), look: time.Microsecond}
	_, err := c.pacer(10).Run(ctx, make(chan struct{}), func(i int, _ time.Time) {
		if i == 3 {
			cancel()
		}
		if i > 3 {
			t.Error("fired after the end")
		}
	})
	if err == nil {
		t.Error("no error")
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 1.006: "1.01", 2.04: "2.0", 19.96: "20.0", 20.4: "20", 999: "999", 1234.5: "1,234", 1e6: "1,000,000", -1234: "-1,234", -0.25: "-0.25"} {
		if got := Number(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	table := Table{Name: "soak", Write: func(w io.Writer) { fmt.Fprintln(w, "new") }}
	got, err := table.Put([]byte("a\n<!-- soak -->\nold\n<!-- end of soak -->\nb\n"))
	if want := "a\n<!-- soak -->\nnew\n<!-- end of soak -->\nb\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	for _, text := range []string{"", "<!-- soak -->\n", "<!-- table -->\n<!-- end of table -->\n"} {
		if _, err := table.Put([]byte(text)); err == nil {
			t.Errorf("written into %q", text)
		}
	}
}
