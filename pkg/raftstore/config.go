package raftstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubeshim/shim/pkg/compact"
	"github.com/kubeshim/shim/pkg/raftstore/membership"
	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
	"github.com/kubeshim/shim/pkg/raftstore/transport"
	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// Config is what a Store needs to open. The zero value of a field means its default.
type Config struct {
	// DataDir is the directory etcd calls --data-dir. Everything lives below DataDir/member. Required.
	DataDir string
	// WALDir is a directory for the log alone. Default DataDir/member/wal.
	WALDir string
	// Name of this member. Default "default".
	Name string
	// InitialCluster is "name=url[,name=url...]", read only when the data dir is new. Default Name=PeerURLs.
	InitialCluster string
	// ClusterToken separates clusters with equal URLs; part of the IDs. Default "etcd-cluster".
	ClusterToken string
	// ClusterState is "new" (default), or "existing" for a member that joins a cluster that runs.
	ClusterState string
	// PeerURLs are the advertised peer URLs of this member. Default http://localhost:2380.
	PeerURLs []string
	// ClientURLs are the advertised client URLs, published to all members. Default http://localhost:2379.
	ClientURLs []string

	// TickInterval is raft's clock (etcd's --heartbeat-interval). Default 100 ms.
	TickInterval time.Duration
	// ElectionTicks is the election timeout in ticks. Default 10.
	ElectionTicks int
	// Quota bounds the bytes of live keys and leases (mvcc.View.QuotaSize); a command that would grow them beyond raises the NOSPACE alarm.
	// History is not counted, nor what the files take.
	Quota compact.Quota
	// FetchMembers asks a running cluster for its members: required for ClusterState "existing"; for a new cluster it finds out that this
	// member was part of it before it lost its data.
	FetchMembers membership.FetchMembers
	// ForceNewCluster starts as the only member of a cluster that had more (--force-new-cluster), with all that is in its log. It does nothing
	// to a data dir that is new, or has no other member.
	ForceNewCluster bool
	// LaxReconfiguration leaves out the checks that keep a change of members from costing the quorum (--strict-reconfig-check=false).
	LaxReconfiguration bool
	// LearnersMax is the most learners in the cluster (--max-learners). Default 1; negative: none.
	LearnersMax int
	// CorruptCheckInterval is how often the leader compares the rows of all members (--corrupt-check-time), beside the rolling hashes, which
	// it compares always. It costs each member a walk over all it holds. Default never.
	CorruptCheckInterval time.Duration
	// CompactCheckInterval is how often it looks for a compaction since the last such comparison, and then makes one
	// (--compact-hash-check-time). Default never.
	CompactCheckInterval time.Duration
	// InitialCorruptCheck refuses to open a data dir whose rows differ from those of the other members (the feature gate of that name).
	InitialCorruptCheck bool
	// MaxRequestBytes bounds one log entry. Default 1.5 MiB.
	MaxRequestBytes int
	// SnapshotCatchupEntries are kept in memory for slow members once there is another member. Default 5,000.
	SnapshotCatchupEntries uint64
	// NoPreVote turns raft's pre-vote off: a member that was cut off may then depose a leader when it comes back.
	NoPreVote bool
	// NoTickAdvance lets the first election of a start wait for a whole election timeout (etcd's --initial-election-tick-advance=false).
	NoTickAdvance bool
	// Memory bounds what of the versions stays in memory. What does not is read from DBPath.
	Memory compact.Memory
	// Checkpoints says when one is due.
	Checkpoints compact.CheckpointPolicy
	// Defrag says when the database file is written anew.
	Defrag compact.DefragPolicy
	// LeaseCheckpointInterval is how often remaining times of long leases are written to the log. Default 1 min.
	LeaseCheckpointInterval time.Duration
	// WALSegmentBytes is the size of one WAL file. Default that of package wal.
	WALSegmentBytes int64

	// SlowApply is how long applying one entry may take before SlowApply is told (--warning-apply-duration). Default 100 ms; negative:
	// each entry is.
	SlowApply time.Duration
	// MemoryLocked says that all memory of the process is locked (--memory-mlock), which the mapped database is to be exempt from.
	MemoryLocked bool
	// Trace lets commands carry a Trace. Without it they must not; then nothing is remembered of fsyncs.
	Trace bool

	// OnApply is called by who applies, after the View is published and before the callers are answered.
	// It must not block and must not call into the Store, except View.
	OnApply func(v *mvcc.View, events []mvcc.Event)
	// OnEvent is told what happens inside, for a log. It is called from several goroutines and must not block.
	OnEvent func(Event)
	// Tokens is told of tokens. Default one that keeps none.
	Tokens Tokens
	// Loading is told how far Open has come. Default one that nobody reads.
	Loading *Loading
	// Connect gives the way to the other members, once it is known who this one is. The handler may be called from then on. Default:
	// there are no others.
	Connect func(member, cluster uint64, h transport.Handler) (Peers, error)
	// Registerer takes the metrics. Default none.
	Registerer prometheus.Registerer

	// FS holds the WAL and the lock. Default vfs.OS.
	FS vfs.FS
	// DBPath is the bbolt file, always a real one. Default DataDir/member/snap/db; tests that keep the WAL in memory set it.
	DBPath string
	// dbFS is the file system around that file, always the real one; tests look at what is done to it. Default vfs.OS.
	dbFS vfs.FS
	// freelistBytes is backend's FreelistBytes; tests set it.
	freelistBytes int64
	// diskFree is backend's DiskFree; tests set it.
	diskFree func(path string) int64
	// heldBytes is how many bytes of entries a start holds between reading the log and applying it; tests set it. Default what may be handed to
	// the apply goroutine.
	heldBytes int
	// firstID is what the IDs of commands count from; tests set it. Default a random number: they do not repeat after a clock was set back.
	firstID uint64
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Ticks replaces the ticker of TickInterval. Default a real ticker.
	Ticks <-chan time.Time
}

// EnsureDefaults fills the zero fields.
func (c *Config) EnsureDefaults() {
	setDefault(&c.Name, "default")
	setDefault(&c.ClusterToken, "etcd-cluster")
	setDefault(&c.ClusterState, "new")
	if len(c.PeerURLs) == 0 {
		c.PeerURLs = []string{"http://localhost:2380"}
	}
	if len(c.ClientURLs) == 0 {
		c.ClientURLs = []string{"http://localhost:2379"}
	}
	if c.InitialCluster == "" {
		c.InitialCluster = membership.InitialClusterFromName(c.Name, c.PeerURLs)
	}
	setDefault(&c.TickInterval, tickIntervalDefault)
	setDefault(&c.ElectionTicks, electionTicksDefault)
	setDefault(&c.LearnersMax, membership.LearnersMaxDefault)
	setDefault(&c.MaxRequestBytes, requestBytesMaxDefault)
	setDefault(&c.SnapshotCatchupEntries, uint64(snapshotCatchupEntriesDefault))
	c.Memory.EnsureDefaults()
	c.Checkpoints.FitMemory(c.Memory.Limit)
	c.Defrag.EnsureDefaults()
	setDefault(&c.SlowApply, slowApplyDefault)
	setDefault(&c.LeaseCheckpointInterval, leaseCheckpointIntervalDefault)
	if c.OnApply == nil {
		c.OnApply = func(*mvcc.View, []mvcc.Event) {}
	}
	if c.OnEvent == nil {
		c.OnEvent = func(Event) {}
	}
	if c.Tokens == nil {
		c.Tokens = noTokens{}
	}
	if c.Loading == nil {
		c.Loading = &Loading{}
	}
	if c.Connect == nil {
		c.Connect = func(uint64, uint64, transport.Handler) (Peers, error) { return nobody{}, nil }
	}
	if c.FS == nil {
		c.FS = vfs.OS
	}
	if c.dbFS == nil {
		c.dbFS = vfs.OS
	}
	if c.DBPath == "" {
		c.DBPath = c.dirs().db()
	}
	setDefault(&c.firstID, rand.Uint64N(1<<63))
	if c.Now == nil {
		c.Now = time.Now
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports everything that is wrong at once.
func (c *Config) Validate() error {
	var errs []error
	if c.DataDir == "" {
		errs = append(errs, errors.New("data dir is not set"))
	}
	if c.ClusterState != "new" && c.ClusterState != "existing" {
		errs = append(errs, fmt.Errorf("initial cluster state %q is neither new nor existing", c.ClusterState))
	}
	if c.TickInterval < 0 || c.ElectionTicks < electionTicksMin {
		errs = append(errs, fmt.Errorf("election timeout of %d ticks of %v: at least %d ticks are needed",
			c.ElectionTicks, c.TickInterval, electionTicksMin))
	}
	if c.MaxRequestBytes < 0 {
		errs = append(errs, fmt.Errorf("max request bytes %d is negative", c.MaxRequestBytes))
	}
	if err := c.Memory.Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := c.Checkpoints.Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := c.Defrag.Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.CorruptCheckInterval < 0 || c.CompactCheckInterval < 0 {
		errs = append(errs, errors.New("interval of the comparison of members is negative"))
	}
	if c.LeaseCheckpointInterval < 0 {
		errs = append(errs, errors.New("lease checkpoint interval is negative"))
	}
	if err := membership.ValidateURLs(c.PeerURLs); err != nil {
		errs = append(errs, fmt.Errorf("advertised peer URLs: %w", err))
	}
	if err := membership.ValidateURLs(c.ClientURLs); err != nil {
		errs = append(errs, fmt.Errorf("advertised client URLs: %w", err))
	}
	return errors.Join(errs...)
}

func (c *Config) dirs() Dirs { return Dirs{Data: c.DataDir, WAL: c.WALDir} }

func (c *Config) electionTimeout() time.Duration {
	return time.Duration(c.ElectionTicks) * c.TickInterval
}

// requestTimeout is etcd's: 5 s for the queue, computation and disk, and twice the election timeout for a lost leader.
func (c *Config) requestTimeout() time.Duration { return requestTimeoutBase + 2*c.electionTimeout() }
