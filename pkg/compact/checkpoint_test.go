package compact

import (
	"testing"
	"time"
)

func TestCheckpointPolicy(t *testing.T) {
	p := CheckpointPolicy{WALBytes: 1000, BurstBytes: 100, Entries: 500, Age: time.Minute}
	for _, c := range []struct {
		name  string
		stats CheckpointStats
		want  CheckpointDecision
	}{
		{"fresh", CheckpointStats{}, CheckpointDecision{false, CheckpointClean}},
		{"one entry", CheckpointStats{Entries: 1}, CheckpointDecision{false, CheckpointNotDue}},
		{"wal below", CheckpointStats{Entries: 1, WALBytes: 999}, CheckpointDecision{false, CheckpointNotDue}},
		{"wal at", CheckpointStats{Entries: 1, WALBytes: 1000}, CheckpointDecision{true, CheckpointWAL}},
		{"burst below", CheckpointStats{Entries: 1, WALBytes: 99, WALRate: 1e6}, CheckpointDecision{false, CheckpointNotDue}},
		{"burst at", CheckpointStats{Entries: 1, WALBytes: 100, WALRate: 15}, CheckpointDecision{true, CheckpointBurst}},
		{"burst that is none", CheckpointStats{Entries: 1, WALBytes: 100, WALRate: 14}, CheckpointDecision{false, CheckpointNotDue}},
		{"burst that ended", CheckpointStats{Entries: 1, WALBytes: 900}, CheckpointDecision{false, CheckpointNotDue}},
		{"entries below", CheckpointStats{Entries: 499}, CheckpointDecision{false, CheckpointNotDue}},
		{"entries at", CheckpointStats{Entries: 500}, CheckpointDecision{true, CheckpointEntries}},
		{"age below", CheckpointStats{Entries: 1, Age: 90*time.Second - 1}, CheckpointDecision{false, CheckpointNotDue}},
		{"age at", CheckpointStats{Entries: 1, Age: 90 * time.Second}, CheckpointDecision{true, CheckpointAge}},
		{"age below, behind a compaction", CheckpointStats{Entries: 1, Age: time.Minute - 1, Behind: 2 * time.Second}, CheckpointDecision{false, CheckpointNotDue}},
		{"age at, behind a compaction", CheckpointStats{Entries: 1, Age: time.Minute, Behind: 2 * time.Second}, CheckpointDecision{true, CheckpointBehind}},
		{"in a compaction", CheckpointStats{Entries: 1, Age: time.Minute, Behind: time.Second}, CheckpointDecision{false, CheckpointNotDue}},
		{"long behind a compaction", CheckpointStats{Entries: 1, Age: time.Minute, Behind: time.Minute}, CheckpointDecision{false, CheckpointNotDue}},
		{"half a log, behind a compaction", CheckpointStats{Entries: 1, WALBytes: 500, Behind: 2 * time.Second}, CheckpointDecision{true, CheckpointBehind}},
		{"half of the entries, behind a compaction", CheckpointStats{Entries: 250, Behind: 2 * time.Second}, CheckpointDecision{true, CheckpointBehind}},
		{"old and clean", CheckpointStats{Age: time.Hour, WALBytes: 5000}, CheckpointDecision{false, CheckpointClean}},
		{"wal before the others", CheckpointStats{WALBytes: 1000, Entries: 500, Age: time.Hour}, CheckpointDecision{true, CheckpointWAL}},
		{"failed just now", CheckpointStats{Entries: 1, WALBytes: 1000, Failures: 1}, CheckpointDecision{false, CheckpointPause}},
		{"failed a second ago", CheckpointStats{Entries: 1, WALBytes: 1000, Failures: 1, SinceFailure: time.Second}, CheckpointDecision{true, CheckpointWAL}},
		{"failed twice", CheckpointStats{Entries: 1, WALBytes: 1000, Failures: 2, SinceFailure: time.Second}, CheckpointDecision{false, CheckpointPause}},
		{"a full disk", CheckpointStats{Entries: 1, Full: true}, CheckpointDecision{true, CheckpointSpace}},
		{"a full disk, and nothing to write", CheckpointStats{Full: true}, CheckpointDecision{false, CheckpointClean}},
		{"a full disk that had no room just now", CheckpointStats{Entries: 1, Full: true, Failures: 1}, CheckpointDecision{false, CheckpointPause}},
		{"failed for ever", CheckpointStats{Entries: 1, WALBytes: 1000, Failures: 1 << 30, SinceFailure: time.Minute}, CheckpointDecision{true, CheckpointWAL}},
	} {
		if got := p.Decide(c.stats); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestPatientCheckpoint: what compactions will make dead is waited for, where they come in time.
func TestPatientCheckpoint(t *testing.T) {
	p := CheckpointPolicy{WALBytes: 1000, PatientBytes: 8000, BurstBytes: 100, Entries: 5000, PatientEntries: 20_000, Age: time.Hour}
	heartbeats := CheckpointStats{Entries: 1, Rows: 100, Stale: 50, WALBytes: 4000, Age: 5 * time.Minute}
	for _, c := range []struct {
		name   string
		change func(*CheckpointStats)
		want   CheckpointDecision
	}{
		{"heartbeats", func(*CheckpointStats) {}, CheckpointDecision{false, CheckpointNotDue}},
		{"mostly new objects", func(s *CheckpointStats) { s.Stale-- }, CheckpointDecision{true, CheckpointWAL}},
		{"a full log", func(s *CheckpointStats) { s.WALBytes, s.Age = 8000, 10*time.Minute }, CheckpointDecision{true, CheckpointWAL}},
		{"full before two compactions", func(s *CheckpointStats) { s.WALBytes++ }, CheckpointDecision{true, CheckpointWAL}},
		{"a burst", func(s *CheckpointStats) { s.WALRate = 34 }, CheckpointDecision{true, CheckpointWAL}},
		{"a burst that begins", func(s *CheckpointStats) { s.WALBytes, s.WALRate = 900, 34 }, CheckpointDecision{true, CheckpointBurst}},
		{"no burst", func(s *CheckpointStats) { s.WALRate = 33 }, CheckpointDecision{false, CheckpointNotDue}},
		{"the first compaction", func(s *CheckpointStats) { s.WALBytes, s.Behind = 3999, 10*time.Second }, CheckpointDecision{false, CheckpointNotDue}},
		{"many entries", func(s *CheckpointStats) { s.Entries = 19_999 }, CheckpointDecision{false, CheckpointNotDue}},
		{"too many entries", func(s *CheckpointStats) { s.Entries = 20_000 }, CheckpointDecision{true, CheckpointEntries}},
		{"half of the entries, behind a compaction", func(s *CheckpointStats) { s.Entries, s.WALBytes, s.Behind = 10_000, 3999, 10*time.Second }, CheckpointDecision{true, CheckpointBehind}},
		{"less than half of them", func(s *CheckpointStats) { s.Entries, s.WALBytes, s.Behind = 9_999, 3999, 10*time.Second }, CheckpointDecision{false, CheckpointNotDue}},
		{"entries without patience", func(s *CheckpointStats) { s.Stale, s.WALBytes, s.Entries = 0, 0, 5000 }, CheckpointDecision{true, CheckpointEntries}},
		{"the second", func(s *CheckpointStats) { s.Age, s.Behind = 10*time.Minute, 10*time.Second }, CheckpointDecision{true, CheckpointBehind}},
	} {
		s := heartbeats
		c.change(&s)
		if got := p.Decide(s); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestFitMemory: what no checkpoint holds fits into a small machine.
func TestFitMemory(t *testing.T) {
	const mib = 1 << 20
	for limit, want := range map[int64][3]int64{
		0:          {DefaultCheckpointWALBytes, DefaultCheckpointBurstBytes, DefaultCheckpointPatientBytes},
		1 << 40:    {DefaultCheckpointWALBytes, DefaultCheckpointBurstBytes, DefaultCheckpointPatientBytes},
		1024 * mib: {DefaultCheckpointWALBytes, DefaultCheckpointBurstBytes, 128 * mib},
		256 * mib:  {DefaultCheckpointWALBytes, DefaultCheckpointBurstBytes, DefaultCheckpointWALBytes},
		100 * mib:  {25 * mib, DefaultCheckpointBurstBytes, 25 * mib},
		32 * mib:   {8 * mib, 8 * mib, 8 * mib},
	} {
		var p CheckpointPolicy
		p.FitMemory(limit)
		if got := [3]int64{p.WALBytes, p.BurstBytes, p.PatientBytes}; got != want {
			t.Errorf("with %d bytes of memory: %d, want %d", limit, got, want)
		}
	}
}

func TestCheckpointPolicyDefaults(t *testing.T) {
	var p CheckpointPolicy
	s := CheckpointStats{Entries: 1, WALBytes: DefaultCheckpointWALBytes - 1}
	if p.Decide(s).Do {
		t.Fatal("due below the default")
	}
	s.WALBytes++
	if !p.Decide(s).Do {
		t.Fatal("not due at the default")
	}
	bad := CheckpointPolicy{WALBytes: -1, Age: -1, DeadRows: -1}
	if err := bad.Validate(); err == nil {
		t.Fatal("negative bounds are taken")
	}
}

func TestRemovalStep(t *testing.T) {
	const bytes = 1 << 20
	for _, c := range []struct {
		name  string
		in    RemovalStats
		next  int64
		pause time.Duration
	}{
		{"few small rows", RemovalStats{Took: 100 * time.Microsecond}, bytes, removalPauseMin},
		{"quick", RemovalStats{Full: true, Took: removalStepTime/2 - 1}, 2 * bytes, removalPauseMin},
		{"as it should be", RemovalStats{Full: true, Took: removalStepTime}, bytes, 20 * removalStepTime},
		{"slow", RemovalStats{Full: true, Took: removalStepTime + 1}, bytes / 2, 20*removalStepTime + 20},
		{"slow though it has not taken much", RemovalStats{Took: time.Minute}, bytes / 2, removalPauseMax},
		{"somebody waits", RemovalStats{Full: true, Took: removalStepTime, Awaited: true}, bytes, 2 * removalStepTime},
		{"a slow disk, and somebody waits", RemovalStats{Full: true, Took: time.Minute, Awaited: true}, bytes / 2, removalPauseMax},
		{"many rows", RemovalStats{Took: removalStepTime, Rows: 10, Left: 149_990}, bytes, 10*time.Millisecond - removalStepTime},
		{"too many rows", RemovalStats{Took: removalStepTime, Rows: 1, Left: 1 << 30}, bytes, 2 * removalStepTime},
		{"none of them were there", RemovalStats{Took: removalStepTime, Left: 1 << 30}, bytes, 2 * removalStepTime},
	} {
		c.in.Bytes = bytes
		if next, pause := RemovalStep(c.in); next != c.next || pause != c.pause {
			t.Errorf("%s: %d bytes after %v, want %d after %v", c.name, next, pause, c.next, c.pause)
		}
	}
	if next, _ := RemovalStep(RemovalStats{Bytes: removalStepBytesMin, Took: time.Minute}); next != removalStepBytesMin {
		t.Errorf("%d bytes, less than the least", next)
	}
	if next, _ := RemovalStep(RemovalStats{Bytes: removalStepBytesMax, Full: true}); next != removalStepBytesMax {
		t.Errorf("%d bytes, more than the most", next)
	}
}
