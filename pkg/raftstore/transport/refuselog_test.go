package transport

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// TestRefuseLog: each kind of refusal is told once, and again after a long time, with how many there were.
func TestRefuseLog(t *testing.T) {
	var l refuseLog
	now := time.Unix(1, 0)
	is := func(what string, from types.ID, reason string, wantUntold int, want bool) {
		t.Helper()
		if untold, ok := l.due(from, reason, now); untold != wantUntold || ok != want {
			t.Errorf("%s: %d, %t", what, untold, ok)
		}
	}
	is("the first", 1, "removed", 0, true)
	for range 5 {
		is("another one", 1, "removed", 0, false)
	}
	is("another member", 2, "removed", 0, true)
	is("another reason", 1, "mismatch", 0, true)
	now = now.Add(refusedInterval)
	is("after a while", 1, "removed", 5, true)
	is("again", 1, "removed", 0, false)

	for id := range types.ID(2 * refusedKindsMax) { // who claims to be many is remembered as a few
		l.due(100+id, "removed", now)
	}
	if n := len(l.told); n > refusedKindsMax+1 {
		t.Errorf("%d kinds are remembered", n)
	}
	is("one of too many", 1000, "removed", 0, false)
	is("one that is known", 1, "removed", 0, false)
	now = now.Add(refusedInterval)
	is("when there is room again", 1000, "removed", 0, true)
	is("one that was forgotten", 1, "removed", 0, true)
}

// TestRefusedAgain: a removed member that goes on dialing is one line in the log of the one that it dials.
func TestRefusedAgain(t *testing.T) {
	checkLeaks(t)
	a, b := newMember(t, 1), newMember(t, 2)
	b.refuse(1, ErrRemoved)
	a.tr.SetPeers([]Peer{{1, []string{a.url}}, {2, []string{b.url}}})
	await(t, "the first refusal", b.told(ErrRemoved.Error()))
	for range 3 {
		if _, err := a.tr.link(2).dial(b.url); !errors.Is(err, ErrRemoved) {
			t.Fatalf("error %v", err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	lines := 0
	for _, e := range b.events {
		if _, ok := e.(Refused); ok {
			lines++
		}
	}
	if lines != 1 {
		t.Errorf("%d lines: %v", lines, b.events)
	}
}
