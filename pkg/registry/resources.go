package registry

// Class says how apiservers treat the objects of a resource. A set of bits.
type Class uint8

const (
	// ClassHot marks objects that are rewritten in place at a steady pace, so
	// that nearly all their versions are dead by the next compaction.
	ClassHot Class = 1 << iota
	// ClassLeased marks objects that are written with a lease and go when it
	// expires.
	ClassLeased
	// ClassLarge marks objects which are often beyond 100 kB and may reach the
	// limit of a request.
	ClassLarge
)

// Other is the resource of keys below the prefix that do not belong to one, or
// to none that a name was left for.
const Other = "other"

// renamed lists the built-in resources that are stored under another name than
// the API has for them (SpecialDefaultResourcePrefixes of Kubernetes).
var renamed = map[string]string{
	"controllers":        "replicationcontrollers",
	"ingress":            "ingresses",
	"minions":            "nodes",
	"services/endpoints": "endpoints",
	"services/specs":     "services",
}

// builtin lists the paths whose names are reserved: what a kube-apiserver 1.36
// or 1.37 stores, all feature gates on.
var builtin = []string{
	"apiextensions.k8s.io/customresourcedefinitions", "apiregistration.k8s.io/apiservices",
	"certificatesigningrequests", "clusterrolebindings", "clusterroles", "clustertrustbundles",
	"compositepodgroups", "configmaps", "controllerrevisions", "controllers", "cronjobs", "csidrivers",
	"csinodes", "csistoragecapacities", "daemonsets", "deployments", "deviceclasses", "devicetaintrules",
	"endpointslices", "events", "evictionrequests", "evictions", "flowschemas", "health",
	"horizontalpodautoscalers", "ingress", "ingressclasses", "ipaddresses", "jobs", "leasecandidates",
	"leases", "limitranges", "masterleases", "minions", "mutatingadmissionpolicies",
	"mutatingadmissionpolicybindings", "mutatingwebhookconfigurations", "namespaces", "networkpolicies",
	"peerserverleases", "persistentvolumeclaims", "persistentvolumes", "podcertificaterequests",
	"poddisruptionbudgets", "podgroups", "pods", "podtemplates", "priorityclasses",
	"prioritylevelconfigurations", "ranges", "replicasets", "resourceclaims", "resourceclaimtemplates",
	"resourcepoolstatusrequests", "resourcequotas", "resourceslices", "rolebindings", "roles",
	"runtimeclasses", "secrets", "serviceaccounts", "servicecidrs", "services/endpoints",
	"services/specs", "statefulsets", "storageclasses", "storageversionmigrations", "storageversions",
	"validatingadmissionpolicies", "validatingadmissionpolicybindings",
	"validatingwebhookconfigurations", "volumeattachments", "volumeattributesclasses", "workloads",
}

// classes holds the resources that are in a class, by name. Events carry the
// apiserver's --event-ttl; the two kinds of server leases their own time.
// A node lease, a leader's lease and a leader's candidate are API objects and
// have no etcd lease, whatever they are called.
var classes = map[string]Class{
	"configmaps": ClassLarge,
	"customresourcedefinitions.apiextensions.k8s.io": ClassLarge,
	"events":           ClassLeased,
	"leasecandidates":  ClassHot,
	"leases":           ClassHot,
	"masterleases":     ClassHot | ClassLeased,
	"nodes":            ClassHot,
	"peerserverleases": ClassHot | ClassLeased,
	"secrets":          ClassLarge,
}

// ClassOf answers the class of a resource by the name ResourceOf has for it.
// Zero: nothing special.
func ClassOf(resource string) Class { return classes[resource] }

// Hot says whether ClassHot is in the set.
func (c Class) Hot() bool { return c&ClassHot != 0 }

// Leased says whether ClassLeased is in the set.
func (c Class) Leased() bool { return c&ClassLeased != 0 }

// Large says whether ClassLarge is in the set.
func (c Class) Large() bool { return c&ClassLarge != 0 }

// String lists the classes of the set, for logs and tests.
func (c Class) String() string {
	s := ""
	for _, n := range []struct {
		in   bool
		name string
	}{{c.Hot(), "hot"}, {c.Leased(), "leased"}, {c.Large(), "large"}} {
		if !n.in {
			continue
		}
		if s != "" {
			s += ","
		}
		s += n.name
	}
	return s
}
