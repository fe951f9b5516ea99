package model

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// State is the key space at one revision. The zero value is not valid; see New.
type State struct {
	Revision int64
	keys     map[string]*mvccpb.KeyValue // neither the map nor what is in it is ever changed
}

// New is the state of an empty store.
func New() State { return State{Revision: 1} }

// Get is the key's current version, nil if it has none. It must not be changed.
func (s State) Get(key string) *mvccpb.KeyValue { return s.keys[key] }

// Keys are all keys in order.
func (s State) Keys() []string { return slices.Sorted(maps.Keys(s.keys)) }

// Step is the state after a request, and the response with its header's revision. A request that writes nothing gives the same state.
func (s State) Step(req proto.Message) (State, proto.Message) {
	t := &step{old: s, now: s, rev: s.Revision + 1}
	resp := t.do(req)
	if t.wrote {
		t.now.Revision = t.rev
	}
	setRevision(resp, t.now.Revision)
	return t.now, resp
}

// Apply is the state after a recorded event.
func (s State) Apply(e *mvccpb.Event) State {
	s.keys = maps.Clone(s.keys)
	if s.keys == nil {
		s.keys = make(map[string]*mvccpb.KeyValue)
	}
	if e.Type == mvccpb.Event_DELETE {
		delete(s.keys, string(e.Kv.Key))
	} else {
		s.keys[string(e.Kv.Key)] = e.Kv
	}
	s.Revision = e.Kv.ModRevision
	return s
}

// Next is what the key's event at the next revision would put, if it puts value.
func (s State) Next(key string, value []byte, lease, rev int64) *mvccpb.KeyValue {
	kv := &mvccpb.KeyValue{Key: []byte(key), Value: value, CreateRevision: rev, ModRevision: rev, Version: 1, Lease: lease}
	if old := s.keys[key]; old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
	}
	return kv
}

// Matches is true if key is in what a request's key and range end name.
func Matches(key, begin, end []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(key, begin)
	case len(end) == 1 && end[0] == 0:
		return bytes.Compare(key, begin) >= 0
	}
	return bytes.Compare(key, begin) >= 0 && bytes.Compare(key, end) < 0
}

// step is one Step under way.
type step struct {
	old, now State
	rev      int64
	wrote    bool
}

func (t *step) do(req proto.Message) proto.Message {
	switch r := req.(type) {
	case *pb.PutRequest:
		return t.put(r)
	case *pb.DeleteRangeRequest:
		return t.deleteRange(r)
	case *pb.RangeRequest:
		return t.read(r)
	case *pb.TxnRequest:
		return t.txn(r)
	}
	panic(fmt.Sprintf("model: %T is not known", req))
}

func (t *step) change(key string, kv *mvccpb.KeyValue) {
	if !t.wrote {
		t.now.keys = maps.Clone(t.now.keys)
		if t.now.keys == nil {
			t.now.keys = make(map[string]*mvccpb.KeyValue)
		}
		t.wrote = true
	}
	if kv == nil {
		delete(t.now.keys, key)
	} else {
		t.now.keys[key] = kv
	}
}

func (t *step) put(r *pb.PutRequest) *pb.PutResponse {
	resp := &pb.PutResponse{Header: &pb.ResponseHeader{}}
	key := string(r.Key)
	if r.PrevKv {
		resp.PrevKv = t.now.keys[key]
	}
	t.change(key, t.now.Next(key, r.Value, r.Lease, t.rev))
	return resp
}

func (t *step) matching(begin, end []byte) (found []*mvccpb.KeyValue) {
	for _, key := range t.now.Keys() {
		if Matches([]byte(key), begin, end) {
			found = append(found, t.now.keys[key])
		}
	}
	return found
}

func (t *step) deleteRange(r *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	resp := &pb.DeleteRangeResponse{Header: &pb.ResponseHeader{}}
	for _, kv := range t.matching(r.Key, r.RangeEnd) {
		resp.Deleted++
		if r.PrevKv {
			resp.PrevKvs = append(resp.PrevKvs, kv)
		}
		t.change(string(kv.Key), nil)
	}
	return resp
}

func (t *step) read(r *pb.RangeRequest) *pb.RangeResponse {
	if r.Revision != 0 || r.SortOrder != pb.RangeRequest_NONE || r.KeysOnly {
		panic("model: this option of Range is not known")
	}
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{}}
	found := t.matching(r.Key, r.RangeEnd)
	resp.Count = int64(len(found))
	if r.CountOnly {
		return resp
	}
	if r.Limit > 0 && int64(len(found)) > r.Limit {
		found, resp.More = found[:r.Limit], true
	}
	resp.Kvs = found
	return resp
}

func (t *step) txn(r *pb.TxnRequest) *pb.TxnResponse {
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: true}
	for _, c := range r.Compare {
		resp.Succeeded = resp.Succeeded && t.compare(c)
	}
	ops := r.Success
	if !resp.Succeeded {
		ops = r.Failure
	}
	for _, op := range ops {
		resp.Responses = append(resp.Responses, t.op(op))
	}
	return resp
}

// op has the revision in its header that the key space has within the txn.
func (t *step) op(op *pb.RequestOp) *pb.ResponseOp {
	var resp *pb.ResponseOp
	var inner proto.Message
	switch r := op.Request.(type) {
	case *pb.RequestOp_RequestPut:
		x := t.put(r.RequestPut)
		resp, inner = &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: x}}, x
	case *pb.RequestOp_RequestDeleteRange:
		x := t.deleteRange(r.RequestDeleteRange)
		resp, inner = &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: x}}, x
	case *pb.RequestOp_RequestRange:
		x := t.read(r.RequestRange)
		resp, inner = &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: x}}, x
	default:
		panic(fmt.Sprintf("model: %T in a txn is not known", r))
	}
	rev := t.old.Revision
	if t.wrote {
		rev = t.rev
	}
	setRevision(inner, rev)
	return resp
}

func (t *step) compare(c *pb.Compare) bool {
	kv := t.now.keys[string(c.Key)]
	if kv == nil {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		kv = &mvccpb.KeyValue{}
	}
	var order int
	switch x := c.TargetUnion.(type) {
	case *pb.Compare_Version:
		order = compareInts(kv.Version, x.Version)
	case *pb.Compare_CreateRevision:
		order = compareInts(kv.CreateRevision, x.CreateRevision)
	case *pb.Compare_ModRevision:
		order = compareInts(kv.ModRevision, x.ModRevision)
	case *pb.Compare_Value:
		order = bytes.Compare(kv.Value, x.Value)
	default:
		panic(fmt.Sprintf("model: compare with %T is not known", x))
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	}
	return order < 0
}

func compareInts(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func setRevision(resp proto.Message, rev int64) {
	resp.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().Revision = rev
}
