package compact

import "testing"

func TestRoom(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		m             Memory
		s             MemoryStats
		live, history int64
	}{
		"no bound":              {Memory{}, MemoryStats{Heap: 1 << 40}, 0, 0},
		"history alone":         {Memory{HistoryBytes: 5}, MemoryStats{Heap: 1 << 40}, 0, 5},
		"before any collection": {Memory{Limit: 800 * mib}, MemoryStats{}, 400 * mib, 100 * mib},
		"all fits":              {Memory{Limit: 1000 * mib}, MemoryStats{Heap: 300 * mib, Other: 20 * mib, Values: 200 * mib, History: 50 * mib}, 530 * mib, 125 * mib},
		"history leaves first":  {Memory{Limit: 1000 * mib}, MemoryStats{Heap: 750 * mib, Other: 50 * mib, Values: 600 * mib, History: 100 * mib}, 499 * mib, 1},
		"then values":           {Memory{Limit: 1000 * mib}, MemoryStats{Heap: 900 * mib, Other: 100 * mib, Values: 700 * mib, History: 0}, 400 * mib, 1},
		"never all of them":     {Memory{Limit: 1600 * mib}, MemoryStats{Heap: 4000 * mib, Values: 100 * mib}, 100 * mib, 1},
	} {
		got := c.m.Room(c.s)
		if near(got.Live, c.live) && near(got.History, c.history) {
			continue
		}
		t.Errorf("%s: %d MiB live, %d MiB of history", name, got.Live/mib, got.History/mib)
	}
}

// near allows for what rounding does to a part of a limit.
func near(got, want int64) bool { return got-want <= 1<<20 && want-got <= 1<<20 }

func TestLoadEvicted(t *testing.T) {
	m := Memory{Limit: 1 << 30}
	if n := m.LoadEvicted(100_000, 300<<20); n != 0 {
		t.Errorf("%d of rows that fit are left in the file", n)
	}
	if n := m.LoadEvicted(1_000_000, 4<<30); n < 900_000 || n >= 1_000_000 {
		t.Errorf("%d of 4 GiB are left in the file", n)
	}
	if n := m.LoadEvicted(10_000_000, 4<<30); n != 10_000_000 {
		t.Errorf("%d of more rows than there is room for are left in the file", n)
	}
	if n := (Memory{}).LoadEvicted(1, 1<<40); n != 0 {
		t.Errorf("without a limit %d", n)
	}
}

func TestWatchBatchBytes(t *testing.T) {
	const mib = 1 << 20
	for limit, want := range map[int64]int64{0: mib, MemoryLimitMin: mib / 4, 64 * mib: mib / 2, 128 * mib: mib, 1 << 40: mib} {
		if got := (Memory{Limit: limit}).WatchBatchBytes(); got != want {
			t.Errorf("with %d bytes of memory: %d, want %d", limit, got, want)
		}
	}
}
