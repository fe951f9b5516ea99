package membership

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// ErrOneMember is the answer to an initial cluster of several members.
var ErrOneMember = errors.New("clusters of more than one member are not there yet: name this member alone in --initial-cluster")

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

// Bootstrap is the cluster that a new data dir starts with, and the member that is this one.
func Bootstrap(name, initialCluster, token string, advertisedPeerURLs []string) (self Member, members []Member, err error) {
	urls, err := types.NewURLsMap(initialCluster)
	if err != nil {
		return Member{}, nil, fmt.Errorf("error setting up initial cluster: %w", err)
	}
	if urls[name] == nil {
		return Member{}, nil, fmt.Errorf("couldn't find local name %q in the initial cluster configuration", name)
	}
	if err := advertiseMatches(name, urls[name].StringSlice(), advertisedPeerURLs); err != nil {
		return Member{}, nil, err
	}
	all := urls.URLs()
	for i := 1; i < len(all); i++ {
		if all[i] == all[i-1] {
			return Member{}, nil, fmt.Errorf("initial cluster %s has duplicate url", urls)
		}
	}
	for n, u := range urls {
		m := NewMember(n, u.StringSlice(), token, nil)
		if i := slices.IndexFunc(members, func(o Member) bool { return o.ID == m.ID }); i >= 0 {
			return Member{}, nil, fmt.Errorf("member exists with identical ID %s", m.ID)
		}
		if m.ID == 0 {
			return Member{}, nil, fmt.Errorf("cannot use %s as member id", m.ID)
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	if len(members) > 1 {
		return Member{}, nil, ErrOneMember
	}
	return members[0], members, nil
}

func advertiseMatches(name string, inCluster, advertised []string) error {
	normal, err := types.NewURLs(advertised)
	if err != nil {
		return err
	}
	mine := normal.StringSlice()
	if missing := without(inCluster, mine); len(missing) > 0 {
		return fmt.Errorf("--initial-cluster has %s but missing from --initial-advertise-peer-urls=%s",
			InitialClusterFromName(name, missing), strings.Join(mine, ","))
	}
	if missing := without(mine, inCluster); len(missing) > 0 {
		return fmt.Errorf("--initial-advertise-peer-urls has %s but missing from --initial-cluster=%s",
			strings.Join(missing, ","), InitialClusterFromName(name, inCluster))
	}
	return nil
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
