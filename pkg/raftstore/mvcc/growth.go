package mvcc

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// Growth answers by how many bytes a command would grow the live keys if it
// were applied to this state; not above 0 is what a NOSPACE alarm lets through.
// It is exact in its sign and only there: values are counted in whole units of
// growthUnit bytes, so that an update which is a few bytes longer than the last
// one, as a heartbeat with another timestamp, grows nothing. A put that creates
// its key grows, one over a key grows if its value takes more units, a txn by
// the sum over the branch it takes. Everything else, a lease too, does not.
//
// The cost is a search for a put, and a walk over what it deletes for a txn with
// a put. If a txn compares values that cannot be read, it is 0: applying it tells.
func (v *View) Growth(r *pb.InternalRaftRequest) int64 {
	n, _ := v.growth(r)
	return n
}

func (r reader) growth(req *pb.InternalRaftRequest) (int64, error) {
	switch {
	case req.Put != nil:
		old := r.charge(req.Put.Key)
		return chargePut(req.Put, old) - old, nil
	case req.Txn != nil && txnPuts(req.Txn):
		path, err := r.choose(nil, req.Txn)
		if err != nil {
			return 0, err
		}
		g := growth{reader: r, charges: make(map[string]int64)}
		g.run(req.Txn, path)
		return g.sum, nil
	}
	return 0, nil
}

// charge is what a key counts: 0 if it is not live.
func (r reader) charge(key []byte) int64 {
	if v, ok := r.keys.Get(key); ok && !v.Tombstone() {
		return chargeOf(len(key), v.ValueLen())
	}
	return 0
}

func chargeOf(key, value int) int64 {
	units := (value + growthUnit - 1) / growthUnit
	return int64(rowOverhead + rowKeyLen + key + units*growthUnit)
}

// chargePut is what a key counts after a put, old what it counts before.
func chargePut(p *pb.PutRequest, old int64) int64 {
	if p.IgnoreValue && old > 0 {
		return old
	}
	return chargeOf(len(p.Key), len(p.Value))
}

// growth adds up what the operations of a txn do to the keys, in their order.
type growth struct {
	reader
	charges map[string]int64 // of the keys that operations before have changed
	sum     int64
}

// run answers the rest of the path.
func (g *growth) run(t *pb.TxnRequest, path []bool) (rest []bool) {
	ops := branch(t, path[0])
	path = path[1:]
	for _, op := range ops {
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			g.set(o.RequestPut.Key, chargePut(o.RequestPut, g.get(o.RequestPut.Key)))
		case *pb.RequestOp_RequestDeleteRange:
			g.delete(spanOf(o.RequestDeleteRange.Key, o.RequestDeleteRange.RangeEnd))
		case *pb.RequestOp_RequestTxn:
			path = g.run(o.RequestTxn, path)
		}
	}
	return path
}

func (g *growth) get(key []byte) int64 {
	if c, ok := g.charges[string(key)]; ok {
		return c
	}
	return g.charge(key)
}

func (g *growth) set(key []byte, charge int64) {
	g.sum += charge - g.get(key)
	g.charges[string(key)] = charge
}

func (g *growth) delete(sp span) {
	g.visitLive(sp, func(v *Version) bool {
		g.set(v.Key(), 0)
		return true
	})
	for key := range g.charges { // those that the txn itself has put
		if sp.holds(key) {
			g.set([]byte(key), 0)
		}
	}
}

// holds tells whether a key is in the span.
func (sp span) holds(key string) bool {
	switch sp.kind {
	case spanOne:
		return key == string(sp.key)
	case spanFrom:
		return key >= string(sp.key)
	case spanRange:
		return key >= string(sp.key) && key < string(sp.end)
	}
	return false
}
