package main

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// feature is one of etcd's feature gates.
type feature struct {
	name  string
	stage string // as etcd 3.7 has it
	def   bool
	// inert is why the gate changes nothing here; "" when what it asks for is
	// always done.
	inert string
}

// allFeatures are the gates of etcd 3.7.3.
var allFeatures = []feature{
	{"CompactHashCheck", "ALPHA", false, ""},
	{"FastLeaseKeepAlive", "BETA", true, ""},
	{"InitialCorruptCheck", "ALPHA", false, ""},
	{"LeaseCheckpoint", "ALPHA", false, ""},
	{"LeaseCheckpointPersist", "ALPHA", false, ""},
	{"PriorityRequest", "ALPHA", false, "requests are applied in the order of the log"},
	{"SetMemberLocalAddr", "ALPHA", false, "connections to other members leave from any address"},
	{"StopGRPCServiceOnDefrag", "ALPHA", false, "defragmentation does not stop anything"},
	{"TxnModeWriteWithSharedBuffer", "BETA", true, ""},
}

// The gates for all gates of a stage.
const (
	gateAllAlpha = "AllAlpha"
	gateAllBeta  = "AllBeta"
)

// featureGates are the gates as set, by name.
type featureGates map[string]bool

// String is the gates that were set, sorted.
func (g featureGates) String() string {
	pairs := make([]string, 0, len(g))
	for name, on := range g {
		pairs = append(pairs, fmt.Sprintf("%s=%t", name, on))
	}
	sort.Strings(pairs)
	return strings.Join(pairs, ",")
}

// Set parses "name=bool,..." and adds it. Nothing is added when one is wrong.
func (g featureGates) Set(s string) error {
	parsed := make(map[string]bool)
	for pair := range strings.SplitSeq(s, ",") {
		if pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		if !ok {
			return fmt.Errorf("missing bool value for %s", name)
		}
		value = strings.TrimSpace(value)
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("invalid value of %s=%s, err: %w", name, value, err)
		}
		if name != gateAllAlpha && name != gateAllBeta && lookupFeature(name) == nil {
			return fmt.Errorf("unrecognized feature gate: %s", name)
		}
		parsed[name] = on
	}
	for name, on := range parsed {
		g[name] = on
	}
	return nil
}

// enabled says what a gate is set to, by itself, by its stage or by default.
func (g featureGates) enabled(f feature) bool {
	if on, ok := g[f.name]; ok {
		return on
	}
	stage := gateAllAlpha
	if f.stage == "BETA" {
		stage = gateAllBeta
	}
	if on, ok := g[stage]; ok {
		return on
	}
	return f.def
}

// warnings has a line for each gate that was switched on and changes nothing.
func (g featureGates) warnings() []string {
	var lines []string
	for _, f := range allFeatures {
		if g[f.name] && f.inert != "" {
			lines = append(lines, fmt.Sprintf("feature gate %s has no effect: %s", f.name, f.inert))
		}
	}
	return lines
}

func lookupFeature(name string) *feature {
	if i := slices.IndexFunc(allFeatures, func(f feature) bool { return f.name == name }); i >= 0 {
		return &allFeatures[i]
	}
	return nil
}

// knownFeatures is the list of gates for --help.
func knownFeatures() []string {
	known := []string{gateAllAlpha + "=true|false (ALPHA - default=false)", gateAllBeta + "=true|false (BETA - default=false)"}
	for _, f := range allFeatures {
		known = append(known, fmt.Sprintf("%s=true|false (%s - default=%t)", f.name, f.stage, f.def))
	}
	sort.Strings(known)
	return known
}
