package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kubeshim/shim/test/internal/member"
	"github.com/kubeshim/shim/test/internal/peers"
)

// newMembers finds, or builds, the program of that name and gives each member a
// fresh data dir and free ports.
func newMembers(program, dir string, count int) ([]*member.Member, error) {
	path, err := programPath(program)
	if err != nil {
		return nil, err
	}
	var members []*member.Member
	for i := range count {
		name := program
		if count > 1 {
			name = fmt.Sprintf("%s-%d", program, i)
		}
		m, err := member.New(name, path, dir)
		if err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	for _, m := range members {
		if err := configure(m, program, members); err != nil {
			return nil, err
		}
	}
	return members, nil
}

func programPath(program string) (string, error) {
	switch program {
	case "shim":
		return peers.BuildShim()
	case "floor":
		return os.Executable()
	case "etcd", "kine":
		return peers.Build(program)
	}
	return "", fmt.Errorf("no such server: %q", program)
}

func configure(m *member.Member, program string, cluster []*member.Member) error {
	switch program {
	case "kine":
		m.Args = []string{"--listen-address=" + m.Client, "--metrics-bind-address=0",
			"--endpoint=sqlite://" + filepath.Join(m.Dir, "db") + "?_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate"}
		return os.MkdirAll(m.Dir, 0o755)
	case "floor":
		m.Args = []string{"-serve-floor=" + m.Client}
		return os.MkdirAll(m.Dir, 0o755)
	}
	m.Etcd(cluster...)
	return nil
}
