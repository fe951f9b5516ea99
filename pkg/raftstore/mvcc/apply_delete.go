package mvcc

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// deleteRange deletes the live keys of a range, in their order.
func (s *State) deleteRange(r *pb.DeleteRangeRequest) *DeleteResult {
	victims := s.reader().live(spanOf(r.Key, r.RangeEnd), 0)
	for _, v := range victims {
		s.delete(v)
	}
	res := &DeleteResult{Deleted: int64(len(victims))}
	if r.PrevKv {
		res.Prev = victims
	}
	return res
}

// delete writes a tombstone over the newest version of a key.
func (s *State) delete(v *Version) {
	s.write(newTombstone(v.Key(), s.revision+1, uint32(len(s.changes))), v)
}
