package main

import (
	"io/fs"
	"os"
	"strconv"

	"github.com/kubeshim/shim/pkg/compact"
)

// profileEdge is for boards with little memory and a card for a disk.
const profileEdge = "edge"

// The numbers of the profile edge that are no values of flags.
const (
	edgeMemoryBytes  = 96 << 20
	edgeMemoryShare  = 3 // quarters of a cgroup that is smaller
	edgeSegmentBytes = 8 << 20
	edgeSegmentMax   = 64 << 20 // that of other profiles, which refuse what does not fit into half of it
)

// edgeFlags is what --profile edge sets, but for what was set explicitly.
var edgeFlags = []struct{ name, value, why string }{
	{"memory-limit", strconv.Itoa(edgeMemoryBytes), "of 128 MiB the kernel needs the rest for sockets and the cache of the database; values leave memory before that"},
	{"history-bytes", strconv.Itoa(8 << 20), "an API server reads the past from its own cache; what is older is read from the database"},
	{"quota-backend-bytes", strconv.Itoa(128 << 20), "keys are always in memory: a controller that runs wild meets the quota, not the end of the memory"},
	{"heartbeat-interval", "500", "a card may take seconds for one sync; with etcd's interval that is the end of a leader (k3s has the same two values)"},
	{"election-timeout", "5000", "as above: ten heartbeats"},
	{"warning-unary-request-duration", "1s", "each warning is a line that the same card has to take"},
	{"warning-apply-duration", "1s", "as above"},
}

// applyProfile sets what the profile says, where nobody said otherwise.
func (c *Config) applyProfile(root fs.FS) error {
	if c.Profile == "" {
		return nil
	}
	flags := newFlagSet(c, &command{})
	for _, f := range edgeFlags {
		if c.explicit[f.name] {
			continue
		}
		if err := flags.Set(f.name, f.value); err != nil {
			return err
		}
	}
	if limit, ok := cgroupLimit(root); ok && !c.explicit["memory-limit"] {
		c.MemoryLimit = max(compact.MemoryLimitMin, min(c.MemoryLimit, limit/4*edgeMemoryShare))
	}
	c.note("profile %s: memory limit %d bytes, log segments of %d bytes", c.Profile, c.MemoryLimit, c.segmentBytes())
	return nil
}

// machineRoot is where limits of this machine are read.
func machineRoot() fs.FS { return os.DirFS("/") }

// segmentBytes is the size of a file of the log, 0 for that of the store. There
// are at least two of them, preallocated, and half of one has to take the
// largest request, unless that takes more than segments of the usual size do.
func (c *Config) segmentBytes() int64 {
	if c.Profile != profileEdge {
		return 0
	}
	const page = 4096
	return max(edgeSegmentBytes, min(edgeSegmentMax, (4*int64(c.requestBytes())+page-1)/page*page))
}

// checkpoints is the pace of checkpoints that the settings ask for.
//
// At the edge they are smaller where the log grows fast, as writes wait for the
// sync of one, and a card writes 10 MB/s; they are rarer where it is quiet, as
// each writes pages around what it changes; and the log, which a start replays,
// is bounded by what a small disk can spare.
func (c *Config) checkpoints() compact.CheckpointPolicy {
	var p compact.CheckpointPolicy
	if c.Profile == profileEdge {
		p.WALBytes, p.PatientBytes, p.BurstBytes = 32<<20, 64<<20, 4<<20
		p.Age = 4 * compact.DefaultCheckpointAge
	}
	if c.SnapshotCount != snapshotCountDefault {
		p.Entries = c.SnapshotCount
	}
	return p
}
