package discovery

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/srv"
	"go.etcd.io/etcd/client/pkg/v3/types"
)

// SRV asks DNS for the members of a cluster: the records _etcd-server-ssl._tcp.DOMAIN, whose URLs are https, and then
// _etcd-server._tcp.DOMAIN, each with -SUFFIX behind the service's name when there is one. The record that leads to one of the
// advertised peer URLs is this member and gets its name; the others are named 0, 1, ... in each kind. The answer has the form of
// --initial-cluster. It blocks as long as the system's resolver does.
func SRV(name, domain, suffix string, advertised types.URLs) (string, error) {
	var found []string
	var errs []error
	for _, kind := range []string{"https", "http"} {
		members, err := srv.GetCluster(kind, srv.GetSRVService("etcd-server", suffix, kind), name, domain, advertised)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found = append(found, members...)
	}
	if len(found) == 0 {
		return "", errors.Join(errs...)
	}
	if !slices.ContainsFunc(found, func(m string) bool { return strings.HasPrefix(m, name+"=") }) {
		return "", fmt.Errorf("cannot find local etcd member %q in SRV records", name)
	}
	return strings.Join(found, ","), nil
}
