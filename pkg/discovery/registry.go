package discovery

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
)

const registryPrefix = "/_etcd/registry"

func sizeKey(token string) string { return path.Join(registryPrefix, token, "_config/size") }

func membersPrefix(token string) string { return path.Join(registryPrefix, token, "members") }

func memberKey(token string, id types.ID) string { return path.Join(membersPrefix(token), id.String()) }

// registration is one member that wrote itself.
type registration struct {
	key, urls string
	created   int64 // revision
}

// registry is what the service says about a token.
type registry struct {
	size     int
	members  []registration // in the order in which they came
	revision int64          // of the read
}

// parseSize reads the value of the size key.
func parseSize(kvs []*mvccpb.KeyValue) (int, error) {
	if len(kvs) == 0 {
		return 0, ErrSizeNotFound
	}
	n, err := strconv.Atoi(string(kvs[0].Value))
	if err != nil || n <= 0 {
		return 0, ErrBadSizeKey
	}
	return n, nil
}

// parseMembers keeps what can be a member; ignored is told of the rest.
func parseMembers(kvs []*mvccpb.KeyValue, ignored func(Ignored)) []registration {
	var all []registration
	for _, kv := range kvs {
		m := registration{key: strings.TrimSpace(string(kv.Key)), urls: strings.TrimSpace(string(kv.Value)), created: kv.CreateRevision}
		if !strings.Contains(m.urls, "=") {
			ignored(Ignored{Key: m.key, Value: m.urls})
			continue
		}
		all = append(all, m)
	}
	slices.SortStableFunc(all, func(a, b registration) int { return cmp.Compare(a.created, b.created) })
	return all
}

// hasRoom says whether the member with this key is one of the cluster, or can be.
func (r registry) hasRoom(key string) bool {
	i := slices.IndexFunc(r.members, func(m registration) bool { return m.key == key })
	return i >= 0 && i < r.size || i < 0 && len(r.members) < r.size
}

func (r registry) full() bool { return len(r.members) >= r.size }

// initialCluster is the first members, as many as there should be.
func (r registry) initialCluster() (string, error) {
	urls := make([]string, 0, r.size)
	for _, m := range r.members[:r.size] {
		urls = append(urls, m.urls)
	}
	s := strings.Join(urls, ",")
	if _, err := types.NewURLsMap(s); err != nil {
		return s, ErrInvalidURL
	}
	return s, nil
}
