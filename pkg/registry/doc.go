// Package registry knows how kube-apiservers name the keys they write.
//
// # Purpose
//
// Routing of events and metrics by resource want to know that a key belongs to
// a pod or a node lease, and to which namespace. What is learned here
// changes speed and metrics and never a result (I8): a key that does not fit
// the grammar is as good as any other, it just has no resource.
//
// # Grammar
//
//	prefix     = "/registry/" unless the apiserver has another --etcd-prefix
//	built-in   = prefix resource "/" [ namespace "/" ] name
//	special    = prefix ( "services/specs" | "services/endpoints" ) "/" namespace "/" name
//	custom     = prefix { group "/" } group "/" resource "/" [ namespace "/" ] name
//	allocator  = prefix "ranges/" name
//	probe      = prefix "health"
//	compactor  = "compact_rev_key"         (never prefixed)
//
// The key of a built-in resource does not say its group; that of a custom one
// (a CRD, or an aggregated apiserver) does. A group has a dot and a resource
// never has one, which is how the two are told apart. An aggregated apiserver
// that keeps its data below a group of its own writes two groups in a row; the
// last one counts. A handful of built-in resources are stored under an older
// name, and are answered under the one they have in the API:
//
//	minions            nodes                    controllers         replicationcontrollers
//	services/specs     services                 ingress             ingresses
//	services/endpoints endpoints
//
// A collection is the path of a resource without a name: "/registry/pods/",
// the prefix of every LIST, and "/registry/pods", which no apiserver ever
// writes and all of them read to learn the current revision.
//
// The namespace of an object is what stands between its resource and its name.
// There may be any number of namespaces, so they get no names of their own.
//
// # Names
//
// ResourceOf answers names such as "pods" and
// "widgets.example.com". A name is made once per Grammar and handed out from
// then on, so that a lookup does not allocate and names may be compared and
// used as map keys and as metric labels.
//
// # Goroutines
//
// None. A Grammar may be used from any goroutine: the table of names is an
// immutable map behind an atomic pointer, copied to add a name to it.
//
// # Invariants
//
//  1. The resource of a key never changes while the process lives: once a key
//     was answered with a name or with Other, it always is.
//  2. A name consists of lower-case letters, digits, '-' and '.'.
//
// # Limits
//
// A Grammar hands out DefaultResourcesMax (512) names at most. A cluster has
// about 80 built-in resources, whose names are reserved. When the table is full
// or a path would make a name that is no DNS name, the answer is Other; keys
// then share one series in the metrics and one bucket in the routing.
package registry
