package mvcc

// residency is what of the versions is in memory, and how far the two walks
// have come that make room. It belongs to the State.
//
//   - The first is over what is superseded, oldest first: the queue that
//     compaction works off has it in that order.
//   - The second is a clock over the live keys: it marks each as cold, and evicts
//     those that it marked on its way before and that nobody has read since. A
//     single get, or a write, makes a key warm; a list does not, as it would make
//     all of them so.
//
// What leaves is the encoding; the version keeps its key and its numbers, so
// the index, counts, keys-only answers and compares but those by value never
// touch the file. Only what a finished checkpoint holds may leave.
type residency struct {
	Residency
	persisted Revision // versions up to here are rows of the last finished checkpoint
	spilled   int      // how many the queue of the superseded had pushed before the next to spill
	hand      []byte   // the key from which the clock goes on; nil: the first
	idle      int      // keys that the clock has passed since it evicted one
}

// Residency is how many bytes of encodings are in memory and how many have
// left it. Versions whose values are so short that they never leave are not
// among them.
type Residency struct {
	Live    int64 // of the newest versions of live keys
	History int64 // of superseded versions that are not removed yet

	LiveEvicted    int64 // what of the same is in the file only
	HistoryEvicted int64
	Evictions      uint64 // versions that have left, in total
	EvictedBytes   uint64 // their bytes, in total
}

// Residency tells what is in memory.
func (s *State) Residency() Residency { return s.resident.Residency }

// Residency tells what was in memory when the view was published.
func (v *View) Residency() Residency { return v.residency }

// Room is how many bytes of encodings may stay in memory; 0 is no bound.
type Room struct{ Live, History int64 }

// exceeded tells what is beyond the room.
func (r Residency) exceeded(room Room) (live, history bool) {
	return room.Live > 0 && r.Live > room.Live, room.History > 0 && r.History > room.History
}

// Eviction is what a step of an eviction came to.
type Eviction uint8

const (
	// EvictionDone: what is in memory fits.
	EvictionDone Eviction = iota
	// EvictionBlocked: what is beyond the room was written after the last
	// checkpoint, and can leave once another one is finished.
	EvictionBlocked
	// EvictionMore: there is more to do.
	EvictionMore
)

// Crowded tells that there is more in memory than there is room for.
func (s *State) Crowded(room Room) bool {
	live, history := s.resident.exceeded(room)
	return (live || history) && s.latest.rows != nil
}

// EvictStep lets encodings leave memory, superseded versions before live ones,
// until what is left fits into the room. It looks at budget versions at most
// (1000 if it is 0). It changes nothing that a reader can see.
func (s *State) EvictStep(room Room, budget int) Eviction {
	if !s.Crowded(room) {
		return EvictionDone
	}
	if budget <= 0 {
		budget = compactStepDefault
	}
	live, history := s.resident.exceeded(room)
	out := EvictionDone
	if history {
		budget, out = s.spill(room.History, budget)
	}
	if live && out != EvictionMore {
		out = max(out, s.evictCold(room.Live, budget))
	}
	return out
}

// spill evicts superseded versions, oldest first. It answers what is left of
// the budget.
func (s *State) spill(room int64, budget int) (int, Eviction) {
	q, r := &s.compact.superseded, &s.resident
	r.spilled = max(r.spilled, q.popped)
	for ; budget > 0; budget-- {
		if r.History <= room {
			return budget, EvictionDone
		}
		v := q.look(r.spilled)
		if v == nil || v.mod > r.persisted {
			return budget, EvictionBlocked
		}
		r.spilled++
		if p := v.prev.Load(); p.evict() {
			n := int64(p.size)
			r.History -= n
			r.HistoryEvicted += n
			r.count(n)
		}
	}
	return 0, EvictionMore
}

// evictCold lets the clock go on.
func (s *State) evictCold(room int64, budget int) Eviction {
	r := &s.resident
	var gone []*Version
	s.keys.AscendWeighted(r.hand, func(v *Version) bool {
		budget--
		r.idle++
		switch {
		case v.mod > r.persisted:
		case v.cold.Load() == 0:
			v.cold.Store(1)
		case v.evict():
			n := int64(v.size)
			r.Live -= n
			r.LiveEvicted += n
			r.count(n)
			r.idle = 0
			gone = append(gone, v)
		}
		r.hand = append(append(r.hand[:0], v.Key()...), 0) // behind it
		return budget > 0 && r.Live > room
	})
	if budget > 0 && r.Live > room {
		r.hand = nil // around
	}
	s.restub(gone)
	switch {
	case r.Live <= room:
		return EvictionDone
	case r.idle <= 2*s.keys.Weight():
		return EvictionMore
	}
	r.idle = 0
	return EvictionBlocked
}

// restub has the index and the attachments repeat the keys of live versions that
// were evicted: the keys they have beside the versions alias what is to leave.
func (s *State) restub(vs []*Version) {
	for _, v := range vs {
		s.keys.Set(v)
		if a, ok := s.attached.Get(attachKeyOf(v)); ok && a == v {
			s.attached.Set(v)
		}
	}
}

func (r *residency) count(n int64) {
	r.Evictions++
	r.EvictedBytes += uint64(n)
}

// evictable tells whether the version may leave memory, and whether that frees
// anything worth it. Those that are not are not counted as resident either.
func (v *Version) evictable() bool {
	return v.ValueLen() >= evictValueMin && v.flags&flagRowDiffers == 0
}

// evict puts a stub in the place of the encoding. It answers whether there was
// anything to evict.
func (v *Version) evict() bool {
	kv := v.KV()
	if kv == nil || !v.evictable() {
		return false
	}
	v.setStub(kv)
	return true
}

// wrote accounts for a version that was written over prev, which may be nil.
func (r *residency) wrote(v, prev *Version) {
	if prev != nil && prev.evictable() {
		n := int64(prev.size)
		if prev.Encoding().Resident() {
			r.Live -= n
			r.History += n
		} else {
			r.LiveEvicted -= n
			r.HistoryEvicted += n
		}
	}
	if v.evictable() {
		r.Live += int64(v.size)
	}
}

// loaded accounts for a version that was loaded.
func (r *residency) loaded(v *Version, superseded bool) {
	if !v.evictable() {
		return
	}
	sum := &r.Live
	switch resident := v.Encoding().Resident(); {
	case superseded && resident:
		sum = &r.History
	case superseded:
		sum = &r.HistoryEvicted
	case !resident:
		sum = &r.LiveEvicted
	}
	*sum += int64(v.size)
}

// removed accounts for a version that compaction has removed.
func (r *residency) removed(v *Version) {
	switch n := int64(v.size); {
	case !v.evictable():
	case v.Encoding().Resident():
		r.History -= n
	default:
		r.HistoryEvicted -= n
	}
}
