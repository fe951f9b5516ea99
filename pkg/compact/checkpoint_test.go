package compact

import (
	"testing"
	"time"
)

func TestCheckpointPolicy(t *testing.T) {
	p := CheckpointPolicy{WALBytes: 1000, UnsavedBytes: 500, Age: time.Minute}
	dirty := CheckpointStats{Applied: 10, Saved: 9}
	with := func(change func(*CheckpointStats)) CheckpointStats {
		s := dirty
		change(&s)
		return s
	}
	for _, c := range []struct {
		name  string
		stats CheckpointStats
		want  CheckpointDecision
	}{
		{"fresh", CheckpointStats{}, CheckpointDecision{false, CheckpointClean}},
		{"one entry", dirty, CheckpointDecision{false, CheckpointNotDue}},
		{"wal below", with(func(s *CheckpointStats) { s.WALBytes = 999 }), CheckpointDecision{false, CheckpointNotDue}},
		{"wal at", with(func(s *CheckpointStats) { s.WALBytes = 1000 }), CheckpointDecision{true, CheckpointWAL}},
		{"memory below", with(func(s *CheckpointStats) { s.UnsavedBytes = 499 }), CheckpointDecision{false, CheckpointNotDue}},
		{"memory at", with(func(s *CheckpointStats) { s.UnsavedBytes = 500 }), CheckpointDecision{true, CheckpointMemory}},
		{"age below", with(func(s *CheckpointStats) { s.Age = time.Minute - 1 }), CheckpointDecision{false, CheckpointNotDue}},
		{"age at", with(func(s *CheckpointStats) { s.Age = time.Minute }), CheckpointDecision{true, CheckpointAge}},
		{"old and clean", CheckpointStats{Applied: 9, Saved: 9, Age: time.Hour, WALBytes: 5000}, CheckpointDecision{false, CheckpointClean}},
		{"asked", with(func(s *CheckpointStats) { s.Asked = true }), CheckpointDecision{true, CheckpointAsked}},
		{"asked and clean", CheckpointStats{Asked: true}, CheckpointDecision{false, CheckpointClean}},
		{"asked and running", with(func(s *CheckpointStats) { s.Asked, s.Running = true, true }), CheckpointDecision{false, CheckpointRunning}},
		{"wal before memory", with(func(s *CheckpointStats) { s.WALBytes, s.UnsavedBytes, s.Age = 1000, 500, time.Hour }), CheckpointDecision{true, CheckpointWAL}},
		{"failed just now", with(func(s *CheckpointStats) { s.WALBytes, s.Failures = 1000, 1 }), CheckpointDecision{false, CheckpointPause}},
		{"failed a second ago", with(func(s *CheckpointStats) { s.WALBytes, s.Failures, s.SinceFailure = 1000, 1, time.Second }), CheckpointDecision{true, CheckpointWAL}},
		{"failed twice", with(func(s *CheckpointStats) { s.WALBytes, s.Failures, s.SinceFailure = 1000, 2, time.Second }), CheckpointDecision{false, CheckpointPause}},
		{"failed for ever", with(func(s *CheckpointStats) { s.WALBytes, s.Failures, s.SinceFailure = 1000, 1<<40, time.Minute }), CheckpointDecision{true, CheckpointWAL}},
		{"asked after a failure", with(func(s *CheckpointStats) { s.Asked, s.Failures = true, 5 }), CheckpointDecision{true, CheckpointAsked}},
	} {
		if got := p.Decide(c.stats); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if got := p.ShouldCheckpoint(c.stats); got != c.want.Do {
			t.Errorf("%s: should %v, want %v", c.name, got, c.want.Do)
		}
	}
}

func TestCheckpointPolicyDefaults(t *testing.T) {
	var p CheckpointPolicy
	s := CheckpointStats{Applied: 1, WALBytes: DefaultCheckpointWALBytes - 1}
	if p.ShouldCheckpoint(s) {
		t.Fatal("due below the default")
	}
	s.WALBytes++
	if !p.ShouldCheckpoint(s) {
		t.Fatal("not due at the default")
	}
	bad := CheckpointPolicy{WALBytes: -1, UnsavedBytes: -1, Age: -1}
	if err := bad.Validate(); err == nil {
		t.Fatal("negative bounds are taken")
	}
}
