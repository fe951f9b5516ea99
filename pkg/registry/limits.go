package registry

// Limits of the table of names. See "Limits" in the package comment.
const (
	// DefaultResourcesMax is how many names of resources a Grammar hands out,
	// the built-in ones among them.
	DefaultResourcesMax = 512

	// nameBytesMax bounds one segment of a resource's path: a DNS subdomain,
	// which is what Kubernetes allows a group to be.
	nameBytesMax = 253

	// groupsMax bounds the segments before the resource itself.
	groupsMax = 2
)

// The built-in resources must fit with room for custom ones.
const _ = uint(DefaultResourcesMax - 256)
