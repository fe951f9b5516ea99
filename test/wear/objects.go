package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// message is an encoded protobuf message. As the generated code of Kubernetes does, it has fields that are empty, too.
type message []byte

func (m message) text(field protowire.Number, s string) message {
	return protowire.AppendString(protowire.AppendTag(m, field, protowire.BytesType), s)
}

func (m message) number(field protowire.Number, v uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), v)
}

func (m message) part(field protowire.Number, part message) message {
	return protowire.AppendBytes(protowire.AppendTag(m, field, protowire.BytesType), part)
}

// pairs are the entries of a map.
func (m message) pairs(field protowire.Number, pairs ...string) message {
	for i := 0; i < len(pairs); i += 2 {
		m = m.part(field, message{}.text(1, pairs[i]).text(2, pairs[i+1]))
	}
	return m
}

// quantities are the entries of a map of resources.
func (m message) quantities(field protowire.Number, pairs ...string) message {
	for i := 0; i < len(pairs); i += 2 {
		m = m.part(field, message{}.text(1, pairs[i]).part(2, message{}.text(1, pairs[i+1])))
	}
	return m
}

func (m message) time(field protowire.Number, t time.Time) message {
	return m.part(field, message{}.number(1, uint64(t.Unix())).number(2, 0))
}

// stored is how an API server stores an object.
func stored(apiVersion, kind string, object message) []byte {
	unknown := message{}.part(1, message{}.text(1, apiVersion).text(2, kind)).part(2, object).text(3, "").text(4, "")
	return append([]byte("k8s\x00"), unknown...)
}

// meta is an ObjectMeta.
type meta struct {
	name, namespace, uid string
	generation           uint64
	created              time.Time
	labels, annotations  []string
	owner                message
	managed              []message
}

func (o meta) encode() message {
	m := message{}.text(1, o.name).text(2, "").text(3, o.namespace).text(4, "").text(5, o.uid).text(6, "").number(7, o.generation).time(8, o.created)
	m = m.pairs(11, o.labels...).pairs(12, o.annotations...)
	if o.owner != nil {
		m = m.part(13, o.owner)
	}
	for _, e := range o.managed {
		m = m.part(17, e)
	}
	return m
}

func managed(manager, apiVersion, subresource string, at time.Time, fields string) message {
	return message{}.text(1, manager).text(2, "Update").text(3, apiVersion).time(4, at).text(6, "FieldsV1").part(7, message{}.text(1, fields)).text(8, subresource)
}

// What fields a manager has in managedFields.
const (
	leaseFields = `{"f:metadata":{"f:ownerReferences":{".":{},"k:{\"uid\":\"%s\"}":{}}},"f:spec":{"f:holderIdentity":{},"f:leaseDurationSeconds":{},"f:renewTime":{}}}`

	leaderFields = `{"f:spec":{"f:acquireTime":{},"f:holderIdentity":{},"f:leaseDurationSeconds":{},"f:leaseTransitions":{},"f:renewTime":{}}}`

	nodeFields = `{"f:metadata":{"f:annotations":{".":{},"f:csi.volume.kubernetes.io/nodeid":{},"f:volumes.kubernetes.io/controller-managed-attach-detach":{}},` +
		`"f:labels":{".":{},"f:beta.kubernetes.io/arch":{},"f:beta.kubernetes.io/os":{},"f:kubernetes.io/arch":{},"f:kubernetes.io/hostname":{},"f:kubernetes.io/os":{},` +
		`"f:node.kubernetes.io/instance-type":{},"f:topology.kubernetes.io/region":{},"f:topology.kubernetes.io/zone":{}}},"f:spec":{"f:providerID":{}}}`

	podCIDRFields = `{"f:metadata":{"f:annotations":{"f:node.alpha.kubernetes.io/ttl":{}}},"f:spec":{"f:podCIDR":{},"f:podCIDRs":{".":{},"v:\"%s\"":{}}}}`

	statusFields = `{"f:status":{"f:allocatable":{"f:ephemeral-storage":{}},"f:conditions":{"k:{\"type\":\"DiskPressure\"}":{"f:lastHeartbeatTime":{}},` +
		`"k:{\"type\":\"MemoryPressure\"}":{"f:lastHeartbeatTime":{}},"k:{\"type\":\"PIDPressure\"}":{"f:lastHeartbeatTime":{}},` +
		`"k:{\"type\":\"Ready\"}":{"f:lastHeartbeatTime":{},"f:lastTransitionTime":{},"f:message":{},"f:reason":{},"f:status":{}}},"f:images":{}}}`

	eventFields = `{"f:count":{},"f:firstTimestamp":{},"f:involvedObject":{},"f:lastTimestamp":{},"f:message":{},"f:reason":{},"f:reportingComponent":{},` +
		`"f:reportingInstance":{},"f:source":{"f:component":{},"f:host":{}},"f:type":{}}`
)

// world is what the objects of a cluster are about.
type world struct {
	rng      *rand.Rand
	began    time.Time // of the hour
	nodes    []machine
	pods     []string // UIDs
	images   []message
	leaders  map[string]machine // those who hold the lease of that name
	endpoint uint64             // generation of the API server's own lease
}

// machine is a node, or another holder of a lease.
type machine struct {
	name               string
	uid, leaseUID      string
	created            time.Time
	system, boot, host string // of its nodeInfo
	images             []int
}

func newWorld(nodes int) *world {
	w := &world{rng: rand.New(rand.NewPCG(2, uint64(nodes))), began: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC), leaders: make(map[string]machine)}
	for i := range catalogImages {
		name := fmt.Sprintf("registry.example.com/%s/%s", []string{"platform", "payments", "search", "web"}[i%4], []string{"api", "worker", "frontend", "sidecar", "cron"}[i/4%5])
		w.images = append(w.images, message{}.text(1, name+"@sha256:"+w.hex(64)).text(1, fmt.Sprintf("%s:v1.%d.%d", name, i, w.rng.IntN(40))).number(2, uint64(20e6+w.rng.IntN(400e6))))
	}
	for i := range nodes {
		w.nodes = append(w.nodes, w.machine(fmt.Sprintf("node-%05d", i)))
		w.nodes[i].images = w.rng.Perm(catalogImages)[:nodeImages]
		for range podsPerNode {
			w.pods = append(w.pods, w.uid())
		}
	}
	for _, name := range append([]string{identityLease}, leaders...) {
		w.leaders[name] = w.machine("control-plane-1")
	}
	return w
}

func (w *world) machine(name string) machine {
	return machine{name: name, uid: w.uid(), leaseUID: w.uid(), created: w.began.Add(-time.Duration(w.rng.IntN(90*24*3600)) * time.Second),
		system: w.uid(), boot: w.uid(), host: w.hex(32)}
}

func (w *world) hex(digits int) string {
	b := make([]byte, digits)
	for i := range b {
		b[i] = "0123456789abcdef"[w.rng.IntN(16)]
	}
	return string(b)
}

// uid is a random one, of version 4.
func (w *world) uid() string {
	return fmt.Sprintf("%s-%s-4%s-%c%s-%s", w.hex(8), w.hex(4), w.hex(3), "89ab"[w.rng.IntN(4)], w.hex(3), w.hex(12))
}

// nodeLease is the one that the kubelet of node i renews.
func (w *world) nodeLease(i int, now time.Duration) []byte {
	n, at := w.nodes[i], w.began.Add(now)
	o := meta{name: n.name, namespace: "kube-node-lease", uid: n.leaseUID, created: n.created,
		owner:   message{}.text(1, "Node").text(3, n.name).text(4, n.uid).text(5, "v1"),
		managed: []message{managed("kubelet", "coordination.k8s.io/v1", "", at, fmt.Sprintf(leaseFields, n.uid))}}
	return w.lease(o, message{}.text(1, n.name).number(2, 40), at)
}

// leaderLease is one by which a component's replicas agree on one of them, or an API server's identity.
func (w *world) leaderLease(name string, now time.Duration) []byte {
	n, at := w.leaders[name], w.began.Add(now)
	o := meta{name: name, namespace: "kube-system", uid: n.leaseUID, created: n.created,
		managed: []message{managed(name, "coordination.k8s.io/v1", "", at, leaderFields)}}
	acquired := message{}.number(1, uint64(n.created.Unix())).number(2, 513_000)
	return w.lease(o, message{}.text(1, n.name+"_"+n.uid).number(2, 15).part(3, acquired).number(5, 7), at)
}

func (w *world) lease(o meta, spec message, at time.Time) []byte {
	renewed := message{}.number(1, uint64(at.Unix())).number(2, uint64(w.rng.IntN(1e6))*1000)
	return stored("coordination.k8s.io/v1", "Lease", message{}.part(1, o.encode()).part(2, spec.part(4, renewed)))
}

// node is node i as its kubelet reports it.
func (w *world) node(i int, now time.Duration) []byte {
	n, at := w.nodes[i], w.began.Add(now)
	cidr := fmt.Sprintf("10.%d.%d.0/24", 64+i/256, i%256)
	o := meta{name: n.name, uid: n.uid, created: n.created,
		labels: []string{"beta.kubernetes.io/arch", "amd64", "beta.kubernetes.io/os", "linux", "kubernetes.io/arch", "amd64", "kubernetes.io/hostname", n.name,
			"kubernetes.io/os", "linux", "node.kubernetes.io/instance-type", "m6i.2xlarge", "topology.kubernetes.io/region", "eu-central-1",
			"topology.kubernetes.io/zone", "eu-central-1" + string("abc"[i%3])},
		annotations: []string{"csi.volume.kubernetes.io/nodeid", `{"ebs.csi.aws.com":"i-0` + n.host[:16] + `"}`, "node.alpha.kubernetes.io/ttl", "0",
			"volumes.kubernetes.io/controller-managed-attach-detach", "true"},
		managed: []message{managed("kubelet", "v1", "", n.created, nodeFields),
			managed("kube-controller-manager", "v1", "", n.created.Add(time.Second), fmt.Sprintf(podCIDRFields, cidr)),
			managed("kubelet", "v1", "status", at, statusFields)}}
	spec := message{}.text(1, cidr).text(2, "").text(3, "aws:///eu-central-1a/i-0"+n.host[:16]).number(4, 0).text(7, cidr)
	return stored("v1", "Node", message{}.part(1, o.encode()).part(2, spec).part(3, w.nodeStatus(n, i, at)))
}

func (w *world) nodeStatus(n machine, i int, at time.Time) message {
	s := message{}.quantities(1, "cpu", "8", "ephemeral-storage", "103865304Ki", "hugepages-1Gi", "0", "hugepages-2Mi", "0", "memory", "32386484Ki", "pods", "110").
		quantities(2, "cpu", "7910m", "ephemeral-storage", "95551679124", "hugepages-1Gi", "0", "hugepages-2Mi", "0", "memory", "31360436Ki", "pods", "110").text(3, "")
	for _, c := range [][4]string{{"MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"},
		{"DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"},
		{"PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"},
		{"Ready", "True", "KubeletReady", "kubelet is posting ready status"}} {
		s = s.part(4, message{}.text(1, c[0]).text(2, c[1]).time(3, at).time(4, n.created).text(5, c[2]).text(6, c[3]))
	}
	s = s.part(5, message{}.text(1, "InternalIP").text(2, fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250))).part(5, message{}.text(1, "Hostname").text(2, n.name))
	s = s.part(6, message{}.part(1, message{}.number(1, 10250)))
	info := message{}
	for field, text := range []string{n.host, n.system, n.boot, "6.12.0-34-generic", "Ubuntu 26.04.1 LTS", "containerd://2.2.1", "v1.37.1", "", "linux", "amd64"} {
		info = info.text(protowire.Number(field+1), text)
	}
	s = s.part(7, info)
	for _, image := range n.images {
		s = s.part(8, w.images[image])
	}
	return s
}

// event is one of a pod of node i.
func (w *world) event(i int, name string, now time.Duration) []byte {
	n, at := w.nodes[i], w.began.Add(now)
	pod := i*podsPerNode + w.rng.IntN(podsPerNode)
	o := meta{name: name, namespace: "default", uid: w.uid(), created: at, managed: []message{managed("kubelet", "v1", "", at, eventFields)}}
	about := message{}.text(1, "Pod").text(2, "default").text(3, podName(pod)).text(4, w.pods[pod]).text(5, "v1").text(6, fmt.Sprint(100_000+w.rng.IntN(1e6))).
		text(7, "spec.containers{app}")
	e := message{}.part(1, o.encode()).part(2, about).text(3, "Unhealthy").
		text(4, fmt.Sprintf("Readiness probe failed: Get \"http://10.%d.%d.%d:8080/healthz\": context deadline exceeded", 64+i/256, i%256, 2+w.rng.IntN(200))).
		part(5, message{}.text(1, "kubelet").text(2, n.name)).time(6, at).time(7, at).number(8, 1).text(9, "Warning")
	return stored("v1", "Event", e.text(12, "").text(14, "kubelet").text(15, n.name))
}

// masterLease is by what an API server says that it is there.
func (w *world) masterLease() []byte {
	w.endpoint++
	o := meta{generation: w.endpoint}
	return stored("v1", "Endpoints", message{}.part(1, o.encode()).part(2, message{}.part(1, message{}.text(1, "10.0.0.1").text(3, ""))))
}

// pod is one of node i/podsPerNode, which nobody changes in the hour.
func (w *world) pod(i int) []byte {
	n := w.nodes[i/podsPerNode]
	o := meta{name: podName(i), namespace: "default", uid: w.pods[i], created: n.created, labels: []string{"app", "web", "pod-template-hash", "7c5ddbdf54"},
		owner:   message{}.text(1, "ReplicaSet").text(3, "web-7c5ddbdf54").text(4, w.uid()).text(5, "apps/v1").number(6, 1).number(7, 1),
		managed: []message{managed("kube-controller-manager", "v1", "", n.created, nodeFields), managed("kubelet", "v1", "status", n.created, statusFields)}}
	container := message{}.text(1, "app").text(2, "registry.example.com/web/frontend@sha256:"+w.hex(64))
	for j := range 12 {
		container = container.part(7, message{}.text(1, fmt.Sprintf("SETTING_%d", j)).text(2, w.hex(20)))
	}
	spec := message{}.part(2, container).text(3, "Always").text(6, "ClusterFirst").text(8, "default").text(10, n.name)
	status := message{}.text(1, "Running")
	for _, c := range []string{"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"} {
		status = status.part(2, message{}.text(1, c).text(2, "True").time(4, n.created))
	}
	return stored("v1", "Pod", message{}.part(1, o.encode()).part(2, spec).part(3, status))
}
