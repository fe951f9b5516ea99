package mvcc

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

func (s *State) applyPut(r *pb.PutRequest) (*PutResult, error) {
	if err := s.checkPutState(r); err != nil {
		return nil, err
	}
	return s.put(r), nil
}

// checkPutState checks what a put relies on: its lease, and the key that it
// wants to keep a part of.
func (s *State) checkPutState(r *pb.PutRequest) error {
	if r.Lease != 0 {
		if _, ok := s.leases.Get(LeaseID(r.Lease)); !ok {
			return ErrLeaseNotFound
		}
	}
	if r.IgnoreValue || r.IgnoreLease {
		if v, ok := s.keys.Get(r.Key); !ok || v.Tombstone() {
			return ErrKeyNotFound
		}
	}
	return nil
}

// put writes a version. It was checked before.
func (s *State) put(r *pb.PutRequest) *PutResult {
	mod := s.revision + 1
	create, num := mod, int64(1)
	value, lease := r.Value, LeaseID(r.Lease)
	res := &PutResult{}
	prev, _ := s.keys.Get(r.Key)
	if prev != nil && !prev.Tombstone() {
		create, num = prev.create, prev.num+1
		if r.IgnoreValue {
			var err error
			if value, err = s.reader().value(prev); err != nil {
				s.lost = err
			}
		}
		if r.IgnoreLease {
			lease = prev.lease
		}
		if r.PrevKv {
			res.Prev = prev
		}
	}
	s.write(newPut(r.Key, value, create, mod, uint32(len(s.changes)), num, lease), prev)
	return res
}
