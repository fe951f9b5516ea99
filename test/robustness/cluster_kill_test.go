//go:build robustness

package robustness

import "testing"

// TestClusterKillLeader: kill -9 of the leader, over and over.
func TestClusterKillLeader(t *testing.T) {
	c := newCluster(t, 3, "--snapshot-count=200", "--snapshot-catchup-entries=100")
	l := newLoad(t, c)
	for round := range 4 {
		l.more(300)
		old := c.leader()
		old.kill()
		t.Logf("round %d: the first write after kill -9 of the leader took %v", round, l.firstWrite(c.others(old)))
		old.start()
	}
	l.finish()
}

// TestClusterKillAll: kill -9 of all members at once, also while they start.
func TestClusterKillAll(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, "--snapshot-count=200")
	l := newLoad(t, c)
	for round := range 4 {
		l.more(300)
		for range 1 + round%2 {
			for _, m := range c.members {
				m.kill()
			}
			for _, m := range c.members {
				m.launch()
			}
		}
		for _, m := range c.members {
			m.awaitReady()
		}
		t.Logf("round %d: the first write when all were up again took %v", round, l.firstWrite(c.members))
	}
	l.finish()
}

// TestClusterHandOver: a leader that is told to stop gives the leadership away first.
func TestClusterHandOver(t *testing.T) {
	c := newCluster(t, 3)
	l := newLoad(t, c)
	for round := range 3 {
		l.more(300)
		old := c.leader()
		before := old.status().RaftTerm
		done := make(chan struct{})
		go func() { defer close(done); old.stop() }()
		pause := l.longestPause(c.others(old), done)
		next := c.leader(c.others(old)...)
		t.Logf("round %d: at most %v between two writes from SIGTERM of the leader on; %s leads in term %d, %s did in %d",
			round, pause, next.name, next.status().RaftTerm, old.name, before)
		old.start()
	}
	l.finish()
}
