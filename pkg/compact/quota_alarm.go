package compact

// QuotaAlarm decides when a member raises its NOSPACE alarm for what it did not
// refuse itself, when it takes the alarm back, and when it says that the quota
// is near. It belongs to one goroutine.
type QuotaAlarm struct {
	quota Quota
	used  int64 // at the last look
	near  int   // the level, in percent of the quota, that was told last; 0: none
}

// QuotaLook is what a look came to.
type QuotaLook struct {
	Raise, Lower bool
	Near         int // percent of the quota that were reached since the last look; 0: none
}

// NewQuotaAlarm begins with what a state uses that was just opened, in bytes.
func NewQuotaAlarm(q Quota, used int64) *QuotaAlarm { return &QuotaAlarm{quota: q, used: used} }

// Low is what has to be in use at most, in bytes, for the alarm to be taken back.
func (q Quota) Low() int64 { return q.Ceiling() / 100 * quotaLowPercent }

// Look takes the bytes in use and whether this member's alarm stands.
//
// The alarm is raised when growth has gone past the quota: by commands of other
// members, whose quota is larger. An alarm that somebody disarms is so not
// raised again before something grows, as in etcd. It is lowered below Low,
// whoever has raised it.
func (a *QuotaAlarm) Look(used int64, raised bool) QuotaLook {
	look := QuotaLook{
		Raise: !raised && used > a.used && !a.quota.Admit(used, 1).OK,
		Lower: raised && used < a.quota.Low(),
		Near:  a.level(used),
	}
	a.used = used
	return look
}

// level answers the level that is reached and was not told since the last time
// that use was clearly below it.
func (a *QuotaAlarm) level(used int64) int {
	bound, ok := a.quota.Bytes()
	if !ok {
		return 0
	}
	percent := bound / 100
	for a.near > 0 && used < percent*int64(a.near-nearSlackPercent) {
		a.near = nearBelow(a.near)
	}
	reached := a.near
	for _, level := range nearPercents {
		if used >= percent*int64(level) {
			reached = max(reached, level)
		}
	}
	if reached == a.near {
		return 0
	}
	a.near = reached
	return reached
}

// nearBelow answers the next lower level, 0 if there is none.
func nearBelow(level int) int {
	below := 0
	for _, l := range nearPercents {
		if l < level {
			below = l
		}
	}
	return below
}
