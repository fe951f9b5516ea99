package main

import (
	"os"
	"time"

	"github.com/kubeshim/shim/test/internal/member"
)

// usage is what a server, and the client beside it, have used so far.
type usage struct {
	member.Usage // of all members

	at     time.Time
	client time.Duration // CPU of this process
}

func (s *server) usage() (sum usage, err error) {
	sum.at = time.Now()
	if sum.client, err = member.ProcessCPU(os.Getpid()); err != nil {
		return sum, err
	}
	for _, m := range s.members {
		u, err := m.Usage()
		if err != nil {
			return sum, err
		}
		sum.CPU += u.CPU
		sum.Written += u.Written
		sum.Switches += u.Switches
		sum.Calls += u.Calls
	}
	return sum, nil
}

func (u usage) since(before usage) usage {
	u.CPU -= before.CPU
	u.Written -= before.Written
	u.Switches -= before.Switches
	u.Calls -= before.Calls
	u.client -= before.client
	return u
}

// sumOf adds up a figure of the members.
func (s *server) sumOf(of func(*member.Member) (int64, error)) (sum int64, err error) {
	for _, m := range s.members {
		n, err := of(m)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func (s *server) written() (int64, error) { return s.sumOf((*member.Member).Written) }

// rss is the resident memory in bytes, peak the highest since resetPeak.
func (s *server) rss() (int64, error)  { return s.sumOf((*member.Member).RSS) }
func (s *server) peak() (int64, error) { return s.sumOf((*member.Member).Peak) }

func (s *server) resetPeak() error {
	_, err := s.sumOf(func(m *member.Member) (int64, error) { return 0, m.ResetPeak() })
	return err
}

// disk is what the data dirs take.
func (s *server) disk() (int64, error) {
	return s.sumOf(func(m *member.Member) (int64, error) { return member.Allocated(m.Dir) })
}
