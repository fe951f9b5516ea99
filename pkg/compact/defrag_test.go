package compact

import (
	"testing"
	"time"
)

func TestDefragDecide(t *testing.T) {
	due := DefragStats{InUseBytes: 100 << 20, IdleBytes: 100 << 20, DiskBytes: -1, Since: time.Hour, Turn: true}
	for name, c := range map[string]struct {
		policy DefragPolicy
		change func(*DefragStats)
		want   DefragReason
	}{
		"due":                          {DefragPolicy{}, func(*DefragStats) {}, DefragDue},
		"off":                          {DefragPolicy{Off: true}, func(*DefragStats) {}, DefragOff},
		"few bytes":                    {DefragPolicy{}, func(s *DefragStats) { s.InUseBytes, s.IdleBytes = 1<<20, 64<<20-1 }, DefragNoGain},
		"enough bytes":                 {DefragPolicy{}, func(s *DefragStats) { s.InUseBytes, s.IdleBytes = 1<<20, 64<<20 }, DefragDue},
		"fewer bytes are enough":       {DefragPolicy{FreeBytes: 1 << 20}, func(s *DefragStats) { s.InUseBytes, s.IdleBytes = 1<<20, 1<<20 }, DefragDue},
		"small share":                  {DefragPolicy{}, func(s *DefragStats) { s.InUseBytes = 201 << 20 }, DefragNoGain},
		"just the share":               {DefragPolicy{}, func(s *DefragStats) { s.InUseBytes = 200 << 20 }, DefragDue},
		"failed":                       {DefragPolicy{}, func(s *DefragStats) { s.Failures, s.SinceFailure = 1, time.Minute-1 }, DefragPause},
		"failed a while ago":           {DefragPolicy{}, func(s *DefragStats) { s.Failures, s.SinceFailure = 1, time.Minute }, DefragDue},
		"failed often":                 {DefragPolicy{}, func(s *DefragStats) { s.Failures, s.SinceFailure = 99, time.Hour-1 }, DefragPause},
		"failed often, an hour ago":    {DefragPolicy{}, func(s *DefragStats) { s.Failures, s.SinceFailure = 99, time.Hour }, DefragDue},
		"recent":                       {DefragPolicy{}, func(s *DefragStats) { s.Since = time.Hour - 1 }, DefragRecent},
		"another interval":             {DefragPolicy{Interval: time.Minute}, func(s *DefragStats) { s.Since = time.Minute }, DefragDue},
		"dead rows":                    {DefragPolicy{}, func(s *DefragStats) { s.Removing = true }, DefragRemoving},
		"snapshot":                     {DefragPolicy{}, func(s *DefragStats) { s.Sending = true }, DefragSending},
		"no room":                      {DefragPolicy{}, func(s *DefragStats) { s.DiskBytes = DefragRoom(s.InUseBytes) - 1 }, DefragNoRoom},
		"just the room":                {DefragPolicy{}, func(s *DefragStats) { s.DiskBytes = DefragRoom(s.InUseBytes) }, DefragDue},
		"turn of another":              {DefragPolicy{}, func(s *DefragStats) { s.Turn = false }, DefragNotTurn},
		"nothing to gain, and no room": {DefragPolicy{}, func(s *DefragStats) { s.IdleBytes, s.DiskBytes = 0, 0 }, DefragNoGain},
	} {
		s := due
		c.change(&s)
		if got := c.policy.Decide(s); got.Reason != c.want || got.Do != (c.want == DefragDue) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if room := DefragRoom(1 << 30); room <= 1<<30+64<<20 {
		t.Errorf("a copy of 1 GiB has room in %d bytes", room)
	}
}

func TestDefragAtStart(t *testing.T) {
	for _, c := range []struct {
		bytes, free int64
		want        bool
	}{{0, 1 << 40, false}, {100, 99, false}, {100, 100, true}} {
		if got := (DefragPolicy{Off: true, StartBytes: c.bytes}).AtStart(c.free); got != c.want {
			t.Errorf("at a start from %d bytes on, with %d free: %t", c.bytes, c.free, got)
		}
	}
}

func TestDefragPolicyValidate(t *testing.T) {
	for _, p := range []DefragPolicy{{FreeBytes: -1}, {Window: -1}, {Interval: -1}} {
		if p.Validate() == nil {
			t.Errorf("%+v is valid", p)
		}
	}
	p := DefragPolicy{}
	p.EnsureDefaults()
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
}

// TestFreeLow: what counts is free through a window of time and checkpoints.
func TestFreeLow(t *testing.T) {
	const window = time.Minute
	now := time.Unix(1, 0)
	var f FreeLow
	for i, step := range []struct {
		after       time.Duration
		checkpoints uint64
		free, want  int64
	}{
		{0, 10, 500, 0},
		{window / 2, 11, 300, 0}, // a checkpoint has used some
		{window / 2, 11, 500, 0}, // too few checkpoints
		{window, 12, 600, 300},   // the first window ends
		{0, 12, 100, 100},        // seen at once
		{0, 12, 700, 100},
		{window, 13, 700, 100},
		{window, 14, 700, 100}, // the second one ends, with 100 in it
		{window, 16, 700, 700},
	} {
		now = now.Add(step.after)
		if got := f.Look(step.free, step.checkpoints, now, window); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
}

// TestDefragTurn: at each moment it is the turn of one member.
func TestDefragTurn(t *testing.T) {
	for members := 1; members <= 7; members++ {
		turns := make(map[int]int)
		for at := time.Unix(0, 0); at.Before(time.Unix(0, 0).Add(time.Duration(members) * defragTurn)); at = at.Add(time.Minute) {
			n := 0
			for rank := range members {
				if DefragTurn(rank, members, at) {
					n++
					turns[rank]++
				}
			}
			if n != 1 {
				t.Fatalf("it is the turn of %d of %d members", n, members)
			}
		}
		if len(turns) != members {
			t.Errorf("%d of %d members have a turn", len(turns), members)
		}
	}
	if DefragTurn(-1, 3, time.Unix(0, 0)) {
		t.Error("it is the turn of one who is no member")
	}
}

// TestCopyStep: steps keep to their time on any disk, and the pauses to their
// share.
func TestCopyStep(t *testing.T) {
	for _, awaited := range []bool{false, true} {
		for _, rate := range []int64{1 << 20, 20 << 20, 500 << 20, 4 << 30} { // bytes a second
			bytes := CopyStepBytes
			var took, pause time.Duration
			for range 20 {
				took = time.Duration(bytes) * time.Second / time.Duration(rate)
				bytes, pause = CopyStep(bytes, took, awaited)
			}
			if bytes < copyStepBytesMin || bytes > copyStepBytesMax || bytes > copyStepBytesMin && took > 2*copyStepTime {
				t.Errorf("at %d bytes a second a step of %d bytes takes %v", rate, bytes, took)
			}
			factor := time.Duration(copyPauseFactor)
			if awaited {
				factor = copyPauseFactorAwaited
			}
			if pause != min(took*factor, copyPauseMax) {
				t.Errorf("at %d bytes a second: pause %v after %v", rate, pause, took)
			}
		}
	}
}
