package vfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, f File, off int64, b []byte) {
	t.Helper()
	_, err := f.WriteAt(b, off)
	must(t, err)
}

func contents(t *testing.T, m *Mem, name string) []byte {
	t.Helper()
	f, err := m.OpenReadOnly(name)
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	if size > 0 {
		_, err = f.ReadAt(b, 0)
		must(t, err)
	}
	return b
}

// TestCrashNames: names are lost without SyncDir, and the contents without Sync.
func TestCrashNames(t *testing.T) {
	m := NewMem()
	for _, name := range []string{"a", "b", "c"} {
		f, err := m.Create(name)
		must(t, err)
		write(t, f, 0, []byte("contents of "+name))
		if name != "b" {
			must(t, f.Sync())
		}
	}
	state := func(m *Mem) string {
		names, err := m.List(".")
		must(t, err)
		var b strings.Builder
		for _, n := range names {
			fmt.Fprintf(&b, "%s=%s;", n, contents(t, m, n))
		}
		return b.String()
	}
	all := "a=contents of a;b=contents of b;c=contents of c;"
	for _, step := range []struct {
		name      string
		do        func()
		now, lose string
	}{
		{"created", func() {}, all, ""},
		{"synced", func() { must(t, m.SyncDir(".")) }, all, "a=contents of a;b=;c=contents of c;"},
		{"renamed", func() { must(t, m.Rename("a", "c")) },
			"b=contents of b;c=contents of a;", "a=contents of a;b=;c=contents of c;"},
		{"rename synced", func() { must(t, m.SyncDir(".")) }, "b=contents of b;c=contents of a;", "b=;c=contents of a;"},
		{"removed", func() { must(t, m.Remove("c")) }, "b=contents of b;", "b=;c=contents of a;"},
		{"remove synced", func() { must(t, m.SyncDir(".")) }, "b=contents of b;", "b=;"},
	} {
		step.do()
		if got := state(m); got != step.now {
			t.Errorf("%s: now %s, want %s", step.name, got, step.now)
		}
		if got := state(m.Crash(KeepAll)); got != step.now {
			t.Errorf("%s: all kept %s, want %s", step.name, got, step.now)
		}
		if got := state(m.Crash(LoseAll)); got != step.lose {
			t.Errorf("%s: all lost %s, want %s", step.name, got, step.lose)
		}
	}
}

// TestCrashSectors: after any crash each sector holds what it held at some moment since the last Sync.
func TestCrashSectors(t *testing.T) {
	const sectors = 8
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		m := NewMem()
		f, err := m.Create("f")
		must(t, err)
		must(t, f.Preallocate(sectors*SectorBytes))
		must(t, f.Sync())
		must(t, m.SyncDir("."))
		possible := make([]map[string]bool, sectors)
		remember := func(reset bool) {
			now := contents(t, m, "f")
			for i := range sectors {
				if reset || possible[i] == nil {
					possible[i] = map[string]bool{}
				}
				possible[i][string(now[i*SectorBytes:(i+1)*SectorBytes])] = true
			}
		}
		remember(true)
		for range 30 {
			if r.IntN(8) == 0 {
				must(t, f.Sync())
				remember(true)
				continue
			}
			off := r.Int64N(sectors * SectorBytes)
			n := 1 + r.Int64N(sectors*SectorBytes-off)
			write(t, f, off, bytes.Repeat([]byte{byte(1 + r.IntN(255))}, int(n)))
			remember(false)
			left := contents(t, m.Crash(Seeded(r.Uint64())), "f")
			if len(left) != sectors*SectorBytes {
				t.Fatalf("seed %d: %d bytes are left", seed, len(left))
			}
			for i := range sectors {
				if !possible[i][string(left[i*SectorBytes:(i+1)*SectorBytes])] {
					t.Fatalf("seed %d: sector %d holds what it never held", seed, i)
				}
			}
		}
		must(t, f.Sync())
		if !bytes.Equal(contents(t, m.Crash(LoseAll), "f"), contents(t, m, "f")) {
			t.Fatalf("seed %d: a crash after Sync has lost something", seed)
		}
	}
}

// TestCrashTears: torn writes do come up, as do whole and lost ones.
func TestCrashTears(t *testing.T) {
	m := NewMem()
	f, err := m.Create("f")
	must(t, err)
	must(t, f.Preallocate(4*SectorBytes))
	must(t, f.Sync())
	must(t, m.SyncDir("."))
	write(t, f, 0, bytes.Repeat([]byte{1}, 4*SectorBytes))
	seen := map[int]bool{}
	for seed := range uint64(200) {
		seen[bytes.Count(contents(t, m.Crash(Seeded(seed)), "f"), []byte{1})/SectorBytes] = true
	}
	if len(seen) != 5 {
		t.Errorf("numbers of sectors kept: %v", seen)
	}
}

func TestCapacity(t *testing.T) {
	m := NewMem()
	m.SetCapacity(1000)
	f, err := m.Create("f")
	must(t, err)
	must(t, f.Preallocate(900))
	if err := f.Preallocate(1001); !IsNoSpace(err) {
		t.Errorf("preallocate: %v", err)
	}
	g, err := m.Create("g")
	must(t, err)
	if n, err := g.WriteAt(make([]byte, 101), 0); n != 0 || !IsNoSpace(err) {
		t.Errorf("write: %d, %v", n, err)
	}
	write(t, g, 0, make([]byte, 100))
	if m.Used() != 1000 {
		t.Errorf("used: %d", m.Used())
	}
	must(t, m.Remove("f"))
	write(t, g, 100, make([]byte, 900))
}
