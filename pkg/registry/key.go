package registry

import "bytes"

// NamespaceOf answers the namespace of an object's key, aliasing it; nil for
// cluster-wide objects, and for all that is no object. No allocation.
func (g *Grammar) NamespaceOf(key []byte) []byte {
	if g.KindOf(key) != KindObject {
		return nil
	}
	_, rest, _ := g.cut(key)
	namespace, _, ok := bytes.Cut(rest[1:], []byte{'/'})
	if !ok {
		return nil
	}
	return namespace
}

// Kind sorts keys by what a client can want with them.
type Kind uint8

const (
	// KindForeign is a key outside the prefix: any other client's.
	KindForeign Kind = iota
	// KindObject is the key of one object.
	KindObject
	// KindCollection is the path of a resource, with or without the slash at
	// its end, or of one namespace of it (with the slash).
	KindCollection
	// KindProbe is the key the health checks of an apiserver read.
	KindProbe
	// KindCompactRev is the key by which apiservers agree on who compacts.
	KindCompactRev
	// KindOther is below the prefix, and nothing an apiserver writes.
	KindOther
)

// KindOf answers the kind of a key. No allocation.
func (g *Grammar) KindOf(key []byte) Kind {
	resource, rest, ok := g.cut(key)
	switch {
	case !ok && string(key) == CompactRevKey:
		return KindCompactRev
	case !ok:
		return KindForeign
	case resource == nil:
		return KindOther
	case len(rest) == 0 && string(resource) == "health":
		return KindProbe
	case len(rest) <= 1:
		return KindCollection
	}
	segments := 1
	for i, c := range rest[1:] {
		if c != '/' {
			continue
		}
		segments++
		if i == 0 || segments > 2 {
			return KindOther
		}
	}
	if rest[len(rest)-1] == '/' {
		return KindCollection
	}
	return KindObject
}
