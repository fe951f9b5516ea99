package membership

import "time"

const (
	// LearnersMaxDefault is the most learners a cluster has unless --max-learners says otherwise.
	LearnersMaxDefault = 1
	// NoLearners is --max-learners=0 where 0 means the default.
	NoLearners = -1

	// resolveTimeout is how long the names in peer URLs may take to resolve, all together, as in etcd.
	resolveTimeout       = 30 * time.Second
	resolveRetryInterval = time.Second

	// learnerReadyShare is how much of the leader's log a learner needs before it may vote.
	learnerReadyShare = 0.9
)
