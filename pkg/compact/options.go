package compact

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Mode says what a retention counts.
type Mode string

// The modes of --auto-compaction-mode.
const (
	ModePeriodic Mode = "periodic"
	ModeRevision Mode = "revision"
)

// Options of automatic compaction. The zero value is periodic, and off.
type Options struct {
	// Mode is ModePeriodic or ModeRevision. Default: ModePeriodic.
	Mode Mode
	// Period is how long history is kept in periodic mode; 0 is off. A longer
	// one lets clients look further back and holds more in memory and on disk.
	Period time.Duration
	// Keep is how many revisions are kept in revision mode; 0 is off.
	Keep mvcc.Revision
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.Mode == "" {
		o.Mode = ModePeriodic
	}
}

// Validate reports everything that is wrong.
func (o *Options) Validate() error {
	var errs []error
	if err := validateMode(string(o.Mode)); err != nil {
		errs = append(errs, err)
	}
	if o.Period != 0 && o.Period < periodMin {
		errs = append(errs, fmt.Errorf("auto-compaction-retention %v is below %v", o.Period, periodMin))
	}
	if o.Keep < 0 {
		errs = append(errs, fmt.Errorf("auto-compaction-retention %d is negative", o.Keep))
	}
	return errors.Join(errs...)
}

// Enabled says whether there is anything to run.
func (o *Options) Enabled() bool {
	if o.Mode == ModeRevision {
		return o.Keep != 0
	}
	return o.Period != 0
}

// ParseOptions reads --auto-compaction-mode and --auto-compaction-retention as
// etcd does. A plain number is hours in periodic mode and revisions in revision
// mode; anything else is a duration as Go writes it ("90m"), whose nanoseconds
// are taken for revisions in revision mode. An empty retention is "0".
func ParseOptions(mode, retention string) (Options, error) {
	if err := validateMode(mode); err != nil {
		return Options{}, err
	}
	o := Options{Mode: Mode(mode)}
	if retention == "" {
		retention = "0"
	}
	n, err := strconv.ParseInt(retention, 10, 64)
	plain := err == nil && n >= 0
	d := time.Duration(n)
	if !plain {
		if d, err = time.ParseDuration(retention); err != nil {
			return Options{}, fmt.Errorf("parse auto-compaction-retention: %w", err)
		}
	}
	switch {
	case o.Mode == ModeRevision:
		o.Keep = mvcc.Revision(d)
	case plain:
		const hoursMax = math.MaxInt64 / int64(time.Hour)
		if n > hoursMax {
			return Options{}, fmt.Errorf("auto-compaction-retention of %d hours is above %d", n, hoursMax)
		}
		o.Period = d * time.Hour
	default:
		o.Period = d
	}
	return o, o.Validate()
}

func validateMode(mode string) error {
	switch Mode(mode) {
	case ModePeriodic, ModeRevision:
		return nil
	case "":
		return errors.New("undefined auto-compaction-mode")
	}
	return fmt.Errorf("unknown auto-compaction-mode %q", mode)
}
