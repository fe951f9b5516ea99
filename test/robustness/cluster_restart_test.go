//go:build robustness

package robustness

import "testing"

// TestClusterRollingRestart: one member after the other is stopped and started, the leader last, and then once more with the leader first.
func TestClusterRollingRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, "--snapshot-count=200", "--snapshot-catchup-entries=100")
	l := newLoad(t, c)
	leader := c.leader()
	order := append(c.others(leader), leader)
	restart := func(m *member) {
		l.more(150)
		m.stop()
		l.more(150)
		m.start()
	}
	for _, m := range order {
		restart(m)
	}
	leader = c.leader()
	for _, m := range append([]*member{leader}, c.others(leader)...) {
		restart(m)
	}
	l.finish()
}
