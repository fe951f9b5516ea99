package transport

import (
	"net/http"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/client/pkg/v3/types"
)

// HTTPHandler answers what operators and joining members ask of a peer port by HTTP, and refuses etcd members. Options.HTTP gets the rest.
func (t *Transport) HTTPHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", t.o.HTTP)
	mux.HandleFunc("/raft", t.refuseEtcd)
	mux.HandleFunc("/raft/", t.refuseEtcd)
	mux.HandleFunc(membersPath, t.answer(t.h.Members))
	mux.HandleFunc("/version", t.answer(t.h.Versions))
	return mux
}

// answer serves JSON with the cluster's ID, as etcd does.
func (t *Transport) answer(content func() []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("X-Etcd-Cluster-ID", types.ID(t.o.Cluster).String())
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(content())
	}
}

// refuseEtcd answers the streams and posts of an etcd member in words that it knows. Its log then says which of the two it is.
func (t *Transport) refuseEtcd(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Etcd-Cluster-ID", types.ID(t.o.Cluster).String())
	w.Header().Set("X-Server-Version", version.Version) // without one, etcd takes us for etcd 2.0
	err := ErrIncompatible
	if id, e := types.IDFromString(r.Header.Get("X-Etcd-Cluster-ID")); e == nil && uint64(id) != t.o.Cluster {
		err = ErrClusterMismatch
	}
	from, _ := types.IDFromString(r.Header.Get("X-Server-From"))
	cluster, _ := types.IDFromString(r.Header.Get("X-Etcd-Cluster-ID"))
	t.refused(Refused{From: from, Cluster: cluster, Err: err})
	http.Error(w, err.Error(), http.StatusPreconditionFailed)
}
