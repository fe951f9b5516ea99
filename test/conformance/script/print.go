package script

import (
	"fmt"
	"hash/crc32"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// masked are the fields whose values two servers may differ in: ids, terms,
// indexes and sizes, and nothing else.
var masked = map[protoreflect.FullName]bool{
	"etcdserverpb.StatusResponse.dbSize":           true,
	"etcdserverpb.StatusResponse.dbSizeInUse":      true,
	"etcdserverpb.StatusResponse.leader":           true,
	"etcdserverpb.StatusResponse.raftIndex":        true,
	"etcdserverpb.StatusResponse.raftTerm":         true,
	"etcdserverpb.StatusResponse.raftAppliedIndex": true,
	"etcdserverpb.HashResponse.hash":               true,
	"etcdserverpb.Member.ID":                       true,
	"etcdserverpb.AlarmMember.memberID":            true,
}

// leaseFields hold lease ids, which the server may have chosen.
var leaseFields = map[protoreflect.FullName]bool{
	"etcdserverpb.LeaseGrantResponse.ID":      true,
	"etcdserverpb.LeaseKeepAliveResponse.ID":  true,
	"etcdserverpb.LeaseTimeToLiveResponse.ID": true,
	"etcdserverpb.LeaseStatus.ID":             true,
	"mvccpb.KeyValue.lease":                   true,
}

// late is a field that etcd fills some time after its start: it is left out.
const late = "etcdserverpb.StatusResponse.storageVersion"

var lateInVersion = regexp.MustCompile(`"storage":"[^"]*"`)

// unordered are the lists that etcd fills from a map.
var unordered = map[protoreflect.FullName]bool{
	"etcdserverpb.LeaseTimeToLiveResponse.keys": true,
}

const remainingTTL = "etcdserverpb.LeaseTimeToLiveResponse.TTL"

var port = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// printer turns messages into text.
type printer struct {
	leases map[string]int64
	least  int64 // a remaining time that is as long or longer is written as such; 0: none is
}

// message prints m with name before it, unless that is empty.
func (p printer) message(name string, m proto.Message) string {
	var b strings.Builder
	p.write(&b, "", name, m.ProtoReflect())
	return b.String()
}

// child is a message inside a message.
type child struct {
	name string
	m    protoreflect.Message
}

func (p printer) write(b *strings.Builder, indent, name string, m protoreflect.Message) {
	var tokens []string
	if name != "" {
		tokens = append(tokens, name)
	}
	fields, children := p.fields(m)
	tokens = append(tokens, fields...)
	// A wrapper around one message, as a oneof is, goes on its line.
	for len(fields) == 0 && len(children) == 1 && name != "" {
		tokens = append(tokens, children[0].name)
		fields, children = p.fields(children[0].m)
		tokens = append(tokens, fields...)
	}
	if len(tokens) == 0 && len(children) == 0 {
		tokens = append(tokens, "{}")
	}
	if len(tokens) > 0 {
		b.WriteString(indent + strings.Join(tokens, " ") + "\n")
	}
	for _, c := range children {
		p.write(b, indent+"  ", c.name, c.m)
	}
}

// fields returns the scalars of m as text and its messages, in field order.
func (p printer) fields(m protoreflect.Message) (tokens []string, children []child) {
	all := m.Descriptor().Fields()
	for i := range all.Len() {
		f := all.Get(i)
		if f.Name() == "header" && f.Message() != nil {
			tokens = append(tokens, header(m.Get(f).Message()))
			continue
		}
		if !m.Has(f) || f.FullName() == late {
			continue
		}
		v := m.Get(f)
		switch {
		case f.IsList() && f.Message() != nil:
			from := len(children)
			for i := range v.List().Len() {
				children = append(children, child{string(f.Name()), v.List().Get(i).Message()})
			}
			if f.Message().FullName() == "etcdserverpb.Member" {
				p.sortMembers(children[from:])
			}
		case f.IsList():
			from := len(tokens)
			for i := range v.List().Len() {
				tokens = append(tokens, string(f.Name())+":"+p.scalar(m, f, v.List().Get(i)))
			}
			if unordered[f.FullName()] {
				sort.Strings(tokens[from:])
			}
		case f.IsMap():
			tokens = append(tokens, string(f.Name())+":map")
		case f.Message() != nil:
			children = append(children, child{string(f.Name()), v.Message()})
		default:
			tokens = append(tokens, string(f.Name())+":"+p.scalar(m, f, v))
		}
	}
	if u := m.GetUnknown(); len(u) > 0 {
		tokens = append(tokens, fmt.Sprintf("unknown-fields:%x", []byte(u)))
	}
	return tokens, children
}

// sortMembers orders members by what is shown of them. They come by ID, which is
// made of their addresses.
func (p printer) sortMembers(members []child) {
	sort.SliceStable(members, func(i, j int) bool {
		a, _ := p.fields(members[i].m)
		b, _ := p.fields(members[j].m)
		return strings.Join(a, " ") < strings.Join(b, " ")
	})
}

// header prints the revision, and which of the ids are missing.
func header(m protoreflect.Message) string {
	if !m.IsValid() {
		return "no-header"
	}
	f := m.Descriptor().Fields()
	var missing []string
	for _, name := range []protoreflect.Name{"cluster_id", "member_id", "raft_term"} {
		if !m.Has(f.ByName(name)) {
			missing = append(missing, " no "+string(name))
		}
	}
	if len(missing) == 3 {
		missing = []string{" no ids"}
	}
	return fmt.Sprintf("header{%d%s}", m.Get(f.ByName("revision")).Int(), strings.Join(missing, ""))
}

func (p printer) scalar(m protoreflect.Message, f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	name := f.FullName()
	switch {
	case masked[name]:
		return "#"
	case name == tokenField:
		return tokenKind(v.String())
	case leaseFields[name]:
		for lease, id := range p.leases {
			if id == v.Int() {
				return "$" + lease
			}
		}
	case name == remainingTTL && p.least > 0:
		if v.Int() >= p.least {
			return fmt.Sprintf("%d+", p.least)
		}
	case name == remainingTTL:
		granted := m.Get(f.ContainingMessage().Fields().ByName("grantedTTL")).Int()
		if v.Int() > 0 && v.Int() <= granted {
			return "#"
		}
	}
	switch f.Kind() {
	case protoreflect.BytesKind:
		return quote(v.Bytes())
	case protoreflect.StringKind:
		return quote([]byte(port.ReplaceAllString(v.String(), "127.0.0.1:#")))
	case protoreflect.EnumKind:
		if d := f.Enum().Values().ByNumber(v.Enum()); d != nil {
			return string(d.Name())
		}
		return strconv.Itoa(int(v.Enum()))
	}
	return v.String()
}

func quote(b []byte) string {
	if len(b) <= bytesMax {
		return strconv.Quote(string(b))
	}
	return fmt.Sprintf("%s...(%d bytes, crc32 %08x)", strconv.Quote(string(b[:8])), len(b), crc32.ChecksumIEEE(b))
}

// sortedNames is for error texts.
func sortedNames[V any](m map[string]V) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
