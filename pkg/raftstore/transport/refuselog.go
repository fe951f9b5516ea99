package transport

import (
	"maps"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// refuseLog keeps members that are refused and try again, as long as somebody lets them, from filling the log of this one.
type refuseLog struct {
	mu   sync.Mutex
	told map[refusal]*tale
}

// refusal is what is told apart. The zero one stands for all for which there is no room.
type refusal struct {
	from   types.ID
	reason string
}

type tale struct {
	at     time.Time // when it was told last
	untold int
}

// due says whether to tell of it now; then it also says how many came in between.
func (l *refuseLog) due(from types.ID, reason string, now time.Time) (untold int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := refusal{from, reason}
	t := l.told[key]
	if t == nil && len(l.told) >= refusedKindsMax {
		maps.DeleteFunc(l.told, func(_ refusal, t *tale) bool { return now.Sub(t.at) >= refusedInterval })
		if len(l.told) >= refusedKindsMax {
			key = refusal{}
			t = l.told[key]
		}
	}
	switch {
	case t == nil:
		if l.told == nil {
			l.told = make(map[refusal]*tale)
		}
		l.told[key] = &tale{at: now}
		return 0, true
	case now.Sub(t.at) < refusedInterval:
		t.untold++
		return 0, false
	}
	untold = t.untold
	*t = tale{at: now}
	return untold, true
}

// refused tells of a refusal, unless that is no news.
func (t *Transport) refused(e Refused) {
	var ok bool
	if e.Untold, ok = t.refuse.due(e.From, e.Err.Error(), time.Now()); ok {
		t.o.OnEvent(e)
	}
}
