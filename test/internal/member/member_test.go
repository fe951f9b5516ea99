package member

import (
	"os"
	"testing"
	"time"
)

func TestProcParsing(t *testing.T) {
	cpu, err := parseStat([]byte("42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 1"))
	if want := 1750 * time.Millisecond; err != nil || cpu != want {
		t.Errorf("stat: %v %v, want %v", cpu, err, want)
	}
	if _, err := parseStat([]byte("42 (x) S 1 2")); err == nil {
		t.Error("a short stat was accepted")
	}
	status := []byte("VmRSS:\t  12 kB\nvoluntary_ctxt_switches:\t77\nnonvoluntary_ctxt_switches:\t5\nempty:\n")
	for name, want := range map[string]int64{"VmRSS": 12, "voluntary_ctxt_switches": 77, "nonvoluntary_ctxt_switches": 5} {
		if got, err := parseField(status, name); err != nil || got != want {
			t.Errorf("%s: %d %v", name, got, err)
		}
	}
	for _, name := range []string{"none", "empty"} {
		if _, err := parseField(status, name); err == nil {
			t.Errorf("%s was found", name)
		}
	}
}

// TestProcessCPU compares the clock with what this process knows to have used.
func TestProcessCPU(t *testing.T) {
	before, err := ProcessCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	sum := uint64(1)
	for i := range uint64(2_000_000) {
		sum ^= sum<<13 ^ i
	}
	after, err := ProcessCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after <= before {
		t.Errorf("2,000,000 steps (%d) took no CPU: %v, then %v", sum, before, after)
	}
}
