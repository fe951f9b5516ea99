package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// Flags are the settings that describe the cluster when a member starts for the first time.
type Flags struct {
	Name           string   // of this member
	InitialCluster string   // name=URL,...
	Token          string   // becomes part of the IDs
	PeerURLs       []string // what this member advertises
	// LearnersMax is --max-learners; 0: LearnersMaxDefault, below it: none.
	LearnersMax int
	// Resolver is asked when URLs that should be the same are written differently; nil: SystemResolver.
	Resolver Resolver
}

// Start is the cluster a member begins with.
type Start struct {
	ClusterID types.ID
	Self      Member
	// Members are all members by ascending ID, with the names and URLs of the flags.
	Members []Member
	// Running are the members as the running cluster knows them, when it is joined; nil for a new cluster. The member's own
	// membership comes from the log or a snapshot; these tell whom to ask for it.
	Running []Member
}

// FetchMembers asks the first of the peer URLs that answers for the ID and the members of its cluster.
type FetchMembers func(ctx context.Context, peerURLs []string) (types.ID, []Member, error)

// DecodeMembers reads what a running member answers to GET /members on its peer URLs.
func DecodeMembers(answer []byte) ([]Member, error) {
	var members []Member
	if err := json.Unmarshal(answer, &members); err != nil {
		return nil, fmt.Errorf("decode members: %w", err)
	}
	if len(members) == 0 {
		return nil, errors.New("failed to get raft cluster member(s) from the given URLs")
	}
	return members, nil
}

// CheckNotStarted refuses a bootstrap when the others, who answered with running, have seen this member serve already: its data
// must have been lost, and beginning anew would make it forget what it has voted for.
func (s Start) CheckNotStarted(running []Member) error {
	for _, m := range running {
		if m.ID == s.Self.ID && len(m.ClientURLs) > 0 {
			return fmt.Errorf("member %s has already been bootstrapped", m.ID)
		}
	}
	return nil
}

// PeerURLs are those of all members but this one, in order.
func (s Start) PeerURLs() []string { return otherURLs(s.Members, s.Self.Name) }

// InitialClusterFromName is etcd's default of --initial-cluster.
func InitialClusterFromName(name string, peerURLs []string) string {
	pairs := make([]string, 0, len(peerURLs))
	for _, u := range peerURLs {
		pairs = append(pairs, name+"="+u)
	}
	return strings.Join(pairs, ",")
}

// ValidateURLs checks scheme, host and port of each URL, with etcd's texts.
func ValidateURLs(urls []string) error {
	_, err := types.NewURLs(urls)
	return err
}

// Bootstrap is the start of a new cluster: every member computes the same IDs from the same flags. The checks, their order and
// their texts are etcd's. It blocks for up to 30 s when an advertised URL has to be resolved to be found in the initial cluster.
func Bootstrap(ctx context.Context, f Flags) (Start, error) {
	urls, err := f.parse()
	if err != nil {
		return Start{}, err
	}
	if err := f.advertiseMatches(ctx, urls[f.Name]); err != nil {
		return Start{}, err
	}
	if duplicateURL(urls) {
		return Start{}, fmt.Errorf("initial cluster %s has duplicate url", urls)
	}
	return f.start(urls)
}

// Join is the start of a member of a running cluster, which was told of it by MemberAdd: the members in the flags have to be those
// that the cluster has, and get their IDs from it. fetch is given the peer URLs of all other members.
func Join(ctx context.Context, f Flags, fetch FetchMembers) (Start, error) {
	urls, err := f.parse()
	if err != nil {
		return Start{}, err
	}
	if duplicateURL(urls) {
		return Start{}, fmt.Errorf("initial cluster %s has duplicate url", urls)
	}
	s, err := f.start(urls)
	if err != nil {
		return Start{}, err
	}
	id, running, err := fetch(ctx, s.PeerURLs())
	if err != nil {
		return Start{}, fmt.Errorf("cannot fetch cluster info from peer urls: %w", err)
	}
	existing := NewCluster(id, running, nil)
	if s.Members, err = assignIDs(ctx, f.resolver(), s.Members, existing.Members()); err != nil {
		return Start{}, fmt.Errorf("error validating peerURLs %s: %w", existing, err)
	}
	if err := existing.CheckLearners(f.LearnersMax); err != nil {
		return Start{}, err
	}
	s.ClusterID, s.Self, s.Running = id, named(s.Members, f.Name), existing.Members()
	return s, nil
}

func (f Flags) resolver() Resolver {
	if f.Resolver == nil {
		return SystemResolver
	}
	return f.Resolver
}

func (f Flags) parse() (types.URLsMap, error) {
	urls, err := types.NewURLsMap(f.InitialCluster)
	if err != nil {
		return nil, fmt.Errorf("error setting up initial cluster: %w", err)
	}
	if urls[f.Name] == nil {
		return nil, fmt.Errorf("couldn't find local name %q in the initial cluster configuration", f.Name)
	}
	return urls, nil
}

// start computes the IDs of a new cluster.
func (f Flags) start(urls types.URLsMap) (Start, error) {
	members := make(map[types.ID]Member, len(urls))
	for name, u := range urls {
		m := NewMember(name, u.StringSlice(), f.Token, nil)
		if _, taken := members[m.ID]; taken {
			return Start{}, fmt.Errorf("member exists with identical ID %s", m.ID)
		}
		if m.ID == 0 {
			return Start{}, errors.New("cannot use 0 as member id")
		}
		members[m.ID] = m
	}
	s := Start{}
	for _, id := range slices.Sorted(maps.Keys(members)) {
		s.Members = append(s.Members, members[id])
	}
	s.ClusterID, s.Self = ClusterID(s.Members), named(s.Members, f.Name)
	return s, nil
}

// advertiseMatches checks that this member has the same URLs in the initial cluster as it advertises.
func (f Flags) advertiseMatches(ctx context.Context, inCluster types.URLs) error {
	parsed, err := types.NewURLs(f.PeerURLs)
	if err != nil {
		return err
	}
	listed, advertised := inCluster.StringSlice(), parsed.StringSlice()
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	same, why := sameURLs(ctx, f.resolver(), advertised, listed)
	if same {
		return nil
	}
	mine := types.URLsMap{f.Name: parsed} // etcd prints these, where its texts say --initial-cluster
	if missing := without(listed, advertised); len(missing) > 0 {
		return fmt.Errorf("--initial-cluster has %s but missing from --initial-advertise-peer-urls=%s (%w)",
			InitialClusterFromName(f.Name, missing), strings.Join(advertised, ","), why)
	}
	if missing := without(advertised, listed); len(missing) > 0 {
		return fmt.Errorf("--initial-advertise-peer-urls has %s but missing from --initial-cluster=%s", strings.Join(missing, ","), mine)
	}
	return fmt.Errorf("failed to resolve %s to match --initial-cluster=%s (%w)", strings.Join(advertised, ","), mine, why)
}

func without(urls, drop []string) []string {
	var rest []string
	for _, u := range urls {
		if !slices.Contains(drop, u) {
			rest = append(rest, u)
		}
	}
	return rest
}

func duplicateURL(urls types.URLsMap) bool {
	seen := make(map[string]bool)
	for _, us := range urls {
		for _, u := range us.StringSlice() {
			if seen[u] {
				return true
			}
			seen[u] = true
		}
	}
	return false
}

func otherURLs(members []Member, name string) []string {
	var urls []string
	for _, m := range members {
		if m.Name != name {
			urls = append(urls, m.PeerURLs...)
		}
	}
	slices.Sort(urls)
	return urls
}

func named(members []Member, name string) Member {
	i := slices.IndexFunc(members, func(m Member) bool { return m.Name == name })
	return members[i].clone()
}

// assignIDs gives each of the local members, which come from flags, the ID that the running cluster knows its peer URLs under.
func assignIDs(ctx context.Context, resolve Resolver, local, running []Member) ([]Member, error) {
	if len(running) != len(local) {
		return nil, errors.New("member count is unequal")
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	byID := make(map[types.ID]Member, len(local))
	for _, m := range running {
		found, err := -1, error(nil)
		for i := range local {
			var same bool
			if same, err = sameURLs(ctx, resolve, m.PeerURLs, local[i].PeerURLs); same {
				found = i
				break
			}
		}
		if found < 0 {
			return nil, fmt.Errorf("PeerURLs: no match found for existing member (%v, %v), last resolver error (%w)", m.ID, m.PeerURLs, err)
		}
		match := local[found].clone()
		match.ID = m.ID
		byID[m.ID] = match
	}
	if len(byID) != len(local) { // two names for one place
		return nil, errors.New("member count is unequal")
	}
	out := make([]Member, 0, len(byID))
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		out = append(out, byID[id])
	}
	return out, nil
}
