// Package kind checks hack/kind on a machine without containers: the scripts by
// bash and by what they ask of docker and kind, for which stand-ins are in the
// PATH that write down their arguments; the cluster configurations by kind's own
// loader and templates (test/peers/kind). What kubeadm makes of these is seen in
// test/e2e.
package kind
