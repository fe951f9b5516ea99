package request

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// Txn is a TxnRequest with room for what apiservers send: one compare of a revision, one write, and one read if the compare fails. It is
// one allocation instead of a dozen; what is beyond goes to the heap piece by piece.
type Txn struct {
	pb.TxnRequest
	compare    pb.Compare
	compares   [1]*pb.Compare
	mod        pb.Compare_ModRevision
	success    txnOp
	failure    txnOp
	put        pb.PutRequest
	putOp      pb.RequestOp_RequestPut
	get        pb.RangeRequest
	getOp      pb.RequestOp_RequestRange
	putTaken   bool
	rangeTaken bool
}

// txnOp is a branch with one operation.
type txnOp struct {
	op  pb.RequestOp
	ops [1]*pb.RequestOp
}

// Decode reads b into the embedded message of an empty Txn. A txn inside a txn is left to proto,
// which bounds the depth.
func (t *Txn) Decode(b []byte) bool {
	for w := wire(b); len(w) > 0; {
		tag, _, raw, ok := w.next()
		if !ok {
			return false
		}
		switch tag {
		case bytes1:
			ok = t.decodeCompare(raw)
		case bytes2:
			t.Success, ok = t.decodeOp(raw, t.Success, &t.success)
		case bytes3:
			t.Failure, ok = t.decodeOp(raw, t.Failure, &t.failure)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return true
}

func (t *Txn) decodeCompare(b []byte) bool {
	c := &t.compare
	if t.Compare == nil {
		t.compares[0] = c
		t.Compare = t.compares[:]
	} else {
		c = new(pb.Compare)
		t.Compare = append(t.Compare, c)
	}
	for w := wire(b); len(w) > 0; {
		tag, v, raw, ok := w.next()
		if !ok {
			return false
		}
		switch tag {
		case varint1:
			c.Result = pb.Compare_CompareResult(v)
		case varint2:
			c.Target = pb.Compare_CompareTarget(v)
		case bytes3:
			c.Key = raw
		case varint4:
			c.TargetUnion = &pb.Compare_Version{Version: int64(v)}
		case varint5:
			c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: int64(v)}
		case varint6:
			if c == &t.compare {
				t.mod.ModRevision = int64(v)
				c.TargetUnion = &t.mod
			} else {
				c.TargetUnion = &pb.Compare_ModRevision{ModRevision: int64(v)}
			}
		case bytes7:
			c.TargetUnion = &pb.Compare_Value{Value: raw}
		case varint8:
			c.TargetUnion = &pb.Compare_Lease{Lease: int64(v)}
		case bytes64:
			c.RangeEnd = raw
		default:
			return false
		}
	}
	return true
}

// decodeOp appends the operation in b to a branch. room is the space for the
// branch's first one.
func (t *Txn) decodeOp(b []byte, ops []*pb.RequestOp, room *txnOp) ([]*pb.RequestOp, bool) {
	op := &room.op
	if ops == nil {
		room.ops[0] = op
		ops = room.ops[:]
	} else {
		op = new(pb.RequestOp)
		ops = append(ops, op)
	}
	w := wire(b)
	if len(w) == 0 {
		return ops, true
	}
	tag, _, raw, ok := w.next()
	if !ok || len(w) > 0 {
		return nil, false
	}
	switch tag {
	case bytes1:
		ok = t.decodeRangeOp(raw, op)
	case bytes2:
		ok = t.decodePutOp(raw, op)
	case bytes3:
		r := new(pb.DeleteRangeRequest)
		ok = DeleteRange(raw, r)
		op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}
	default:
		return nil, false
	}
	return ops, ok
}

func (t *Txn) decodeRangeOp(b []byte, op *pb.RequestOp) bool {
	if t.rangeTaken {
		r := new(pb.RangeRequest)
		op.Request = &pb.RequestOp_RequestRange{RequestRange: r}
		return Range(b, r)
	}
	t.rangeTaken = true
	t.getOp.RequestRange = &t.get
	op.Request = &t.getOp
	return Range(b, &t.get)
}

func (t *Txn) decodePutOp(b []byte, op *pb.RequestOp) bool {
	if t.putTaken {
		r := new(pb.PutRequest)
		op.Request = &pb.RequestOp_RequestPut{RequestPut: r}
		return Put(b, r)
	}
	t.putTaken = true
	t.putOp.RequestPut = &t.put
	op.Request = &t.putOp
	return Put(b, &t.put)
}
