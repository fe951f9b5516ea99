package registry

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"sync/atomic"
)

// DefaultPrefix is the apiserver's --etcd-prefix when it is given none.
const DefaultPrefix = "/registry"

// CompactRevKey is where apiservers agree on who compacts; it has no prefix.
const CompactRevKey = "compact_rev_key"

// Options of a Grammar. The zero value is the default.
type Options struct {
	// Prefix is the apiserver's --etcd-prefix; a missing leading slash is put
	// there as the apiserver does. Default: DefaultPrefix.
	Prefix string
	// ResourcesMax bounds the names handed out. More names make finer metrics
	// and routing and more series to scrape. Default: DefaultResourcesMax.
	ResourcesMax int
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.ResourcesMax == 0 {
		o.ResourcesMax = DefaultResourcesMax
	}
}

// Validate reports everything that is wrong.
func (o *Options) Validate() error {
	var errs []error
	if path.Join("/", o.Prefix) == "/" {
		errs = append(errs, fmt.Errorf("registry prefix %q is empty", o.Prefix))
	}
	if o.ResourcesMax < len(builtin) {
		errs = append(errs, fmt.Errorf("%d names do not hold the %d built-in resources", o.ResourcesMax, len(builtin)))
	}
	return errors.Join(errs...)
}

// Grammar tells keys apart below one prefix. Make it with New; any goroutine
// may use it.
type Grammar struct {
	prefix []byte // with a slash at both ends
	max    int

	names atomic.Pointer[map[string]string] // path of a resource -> name; never changed in place
	mu    sync.Mutex                        // one writer of names at a time
}

// New answers a grammar that knows the built-in resources. It panics on
// options that do not pass Validate.
func New(o Options) *Grammar {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		panic("registry: " + err.Error())
	}
	g := &Grammar{prefix: []byte(strings.TrimSuffix(path.Join("/", o.Prefix), "/") + "/"), max: o.ResourcesMax}
	names := make(map[string]string, len(builtin))
	for _, p := range builtin {
		names[p] = nameOf(p)
	}
	g.names.Store(&names)
	return g
}

var std = New(Options{})

// ResourceOf is Grammar.ResourceOf below DefaultPrefix.
func ResourceOf(key []byte) string { return std.ResourceOf(key) }

// KindOf is Grammar.KindOf below DefaultPrefix.
func KindOf(key []byte) Kind { return std.KindOf(key) }

// NamespaceOf is Grammar.NamespaceOf below DefaultPrefix.
func NamespaceOf(key []byte) []byte { return std.NamespaceOf(key) }

// cut takes the prefix off, then the path of the resource. ok is false outside
// the prefix; the path is nil when the key belongs to no resource.
func (g *Grammar) cut(key []byte) (resource, rest []byte, ok bool) {
	if !bytes.HasPrefix(key, g.prefix) {
		return nil, nil, false
	}
	key = key[len(g.prefix):]
	end := 0 // of the path so far
	for range groupsMax + 1 {
		segment := key[end:]
		n := bytes.IndexByte(segment, '/')
		if n >= 0 {
			segment = segment[:n]
		}
		if len(segment) == 0 || len(segment) > nameBytesMax {
			return nil, nil, true
		}
		if bytes.IndexByte(segment, '.') < 0 {
			end += len(segment)
			if end == len("services") && string(segment) == "services" {
				end += serviceBytes(key[end:])
				if end == len("services") {
					return nil, nil, true
				}
			}
			return key[:end], key[end:], true
		}
		if n < 0 {
			return nil, nil, true
		}
		end += n + 1
	}
	return nil, nil, true
}

// serviceBytes answers how much of what follows "services" belongs to the path
// of the resource: services and endpoints share their first segment.
func serviceBytes(rest []byte) int {
	for _, p := range []string{"/specs", "/endpoints"} {
		if len(rest) >= len(p) && string(rest[:len(p)]) == p && (len(rest) == len(p) || rest[len(p)] == '/') {
			return len(p)
		}
	}
	return 0
}

// ResourceOf answers the name of the resource the key belongs to: "" outside
// the prefix, Other when there is no name for it. The name of a collection is
// that of its objects. It does not allocate, but for the first key of a custom
// resource.
func (g *Grammar) ResourceOf(key []byte) string {
	resource, _, ok := g.cut(key)
	if !ok {
		return ""
	}
	if resource == nil {
		return Other
	}
	return g.name(resource)
}

// name answers the name of a path, making it if there is room.
func (g *Grammar) name(resource []byte) string {
	if name, ok := (*g.names.Load())[string(resource)]; ok {
		return name
	}
	return g.newName(resource)
}

func (g *Grammar) newName(resource []byte) string {
	for _, c := range resource {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '/') {
			return Other
		}
	}
	if len(*g.names.Load()) >= g.max {
		return Other
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old := *g.names.Load()
	if name, ok := old[string(resource)]; ok {
		return name
	}
	if len(old) >= g.max {
		return Other
	}
	names := make(map[string]string, len(old)+1)
	for k, v := range old {
		names[k] = v
	}
	p := string(resource)
	names[p] = nameOf(p)
	g.names.Store(&names)
	return names[p]
}

// nameOf answers the name of a path: resource.group if it has a group.
func nameOf(p string) string {
	group, resource := splitPath(p)
	if group == "" {
		return resource
	}
	return resource + "." + group
}

// splitPath takes the path of a resource apart.
func splitPath(p string) (group, resource string) {
	if name, ok := renamed[p]; ok {
		return "", name
	}
	groups, resource, ok := cutLast(p)
	if !ok {
		return "", p
	}
	if _, last, ok := cutLast(groups); ok {
		return last, resource
	}
	return groups, resource
}

func cutLast(p string) (before, last string, ok bool) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return "", p, false
	}
	return p[:i], p[i+1:], true
}
