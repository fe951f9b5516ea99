package registry

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
