package mvcc

import (
	"fmt"
	"hash/crc32"
	"slices"
	"sort"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// model is the dumb twin of State: every row ever written in one slice, every
// question answered by looking at all of them.
type model struct {
	rev, compacted int64
	rows           []row
	leases         map[int64]Lease
	alarms         map[alarmKey]bool
	events         []string // of the command under way
}

type row struct {
	key, value                    string
	create, mod, sub, ver, leaseN int64
	tomb                          bool
}

type alarmKey struct {
	typ    pb.AlarmType
	member uint64
}

func newModel() *model {
	return &model{rev: 1, compacted: -1, leases: map[int64]Lease{}, alarms: map[alarmKey]bool{}}
}

func (r row) String() string {
	if r.tomb {
		return fmt.Sprintf("{%s deleted m%d}", r.key, r.mod)
	}
	return fmt.Sprintf("{%s=%q c%d m%d v%d l%d}", r.key, r.value, r.create, r.mod, r.ver, r.leaseN)
}

// at answers the newest row of a key at or before a revision; with live, nil
// for a tombstone.
func (m *model) at(key string, rev int64, live bool) *row {
	for i := len(m.rows) - 1; i >= 0; i-- {
		if r := &m.rows[i]; r.key == key && r.mod <= rev {
			if live && r.tomb {
				return nil
			}
			return r
		}
	}
	return nil
}

func inRange(k, key, end string) bool {
	switch end {
	case "":
		return k == key
	case "\x00":
		return k >= key
	}
	return k >= key && k < end
}

// live answers the rows of a range that are visible at a revision, by key.
func (m *model) live(key, end []byte, rev int64) []row {
	seen := map[string]bool{}
	var found []row
	for _, r := range m.rows {
		if seen[r.key] || !inRange(r.key, string(key), string(end)) {
			continue
		}
		seen[r.key] = true
		if v := m.at(r.key, rev, true); v != nil {
			found = append(found, *v)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].key < found[j].key })
	return found
}

// head is the revision that is read while a command is under way.
func (m *model) head() int64 {
	if len(m.events) > 0 {
		return m.rev + 1
	}
	return m.rev
}

func (m *model) rangeKeys(r *pb.RangeRequest, cur int64) (string, error) {
	if r.Revision > cur {
		return "", ErrFutureRev
	}
	rev := r.Revision
	if rev <= 0 {
		rev = cur
	}
	if rev < m.compacted {
		return "", ErrCompacted
	}
	rows := m.live(r.Key, r.RangeEnd, rev)
	count := len(rows)
	if r.CountOnly {
		return fmt.Sprintf("range rev=%d count=%d more=false []", cur, count), nil
	}
	// etcd cuts before it sorts if no order was asked for.
	early := r.SortOrder == pb.RangeRequest_NONE && !RevisionFilters(r)
	if early && r.Limit > 0 && int64(len(rows)) > r.Limit+1 {
		rows = rows[:r.Limit+1]
	}
	rows = slices.DeleteFunc(rows, func(x row) bool {
		return r.MaxModRevision != 0 && x.mod > r.MaxModRevision || x.mod < r.MinModRevision ||
			r.MaxCreateRevision != 0 && x.create > r.MaxCreateRevision || x.create < r.MinCreateRevision
	})
	rows = sortRows(rows, r)
	more := r.Limit > 0 && int64(len(rows)) > r.Limit
	if more {
		rows = rows[:r.Limit]
	}
	for i := range rows {
		if r.KeysOnly {
			rows[i].value = ""
			if r.SortTarget != pb.RangeRequest_VALUE {
				rows[i].leaseN = 0
			}
		}
	}
	return fmt.Sprintf("range rev=%d count=%d more=%v %v", cur, count, more, rows), nil
}

func sortRows(rows []row, r *pb.RangeRequest) []row {
	order, target := r.SortOrder, r.SortTarget
	if order == pb.RangeRequest_NONE {
		if target == pb.RangeRequest_KEY {
			return rows
		}
		order = pb.RangeRequest_ASCEND
	}
	if target == pb.RangeRequest_KEY && order == pb.RangeRequest_ASCEND {
		return rows
	}
	less := func(a, b row) bool {
		switch target {
		case pb.RangeRequest_VERSION:
			return a.ver < b.ver
		case pb.RangeRequest_CREATE:
			return a.create < b.create
		case pb.RangeRequest_MOD:
			return a.mod < b.mod
		case pb.RangeRequest_VALUE:
			return a.value < b.value
		}
		return a.key < b.key
	}
	sort.Sort(rowSort{rows, less, order == pb.RangeRequest_DESCEND})
	return rows
}

type rowSort struct {
	rows []row
	less func(a, b row) bool
	desc bool
}

func (s rowSort) Len() int      { return len(s.rows) }
func (s rowSort) Swap(i, j int) { s.rows[i], s.rows[j] = s.rows[j], s.rows[i] }
func (s rowSort) Less(i, j int) bool {
	if s.desc {
		i, j = j, i
	}
	return s.less(s.rows[i], s.rows[j])
}

func (m *model) write(r row) {
	r.mod, r.sub = m.rev+1, int64(len(m.events))
	prev := m.at(r.key, m.rev, true)
	m.rows = append(m.rows, r)
	ev := r.String()
	if prev != nil && (r.tomb || r.create != r.mod) {
		ev += "<-" + prev.String()
	}
	m.events = append(m.events, ev)
}

func (m *model) checkPut(p *pb.PutRequest) error {
	if _, ok := m.leases[p.Lease]; p.Lease != 0 && !ok {
		return ErrLeaseNotFound
	}
	if (p.IgnoreLease || p.IgnoreValue) && m.at(string(p.Key), m.head(), true) == nil {
		return ErrKeyNotFound
	}
	return nil
}

func (m *model) put(p *pb.PutRequest) string {
	r := row{key: string(p.Key), value: string(p.Value), leaseN: p.Lease, create: m.rev + 1, ver: 1}
	out := "put"
	if prev := m.at(r.key, m.head(), true); prev != nil {
		r.create, r.ver = prev.create, prev.ver+1
		if p.IgnoreValue {
			r.value = prev.value
		}
		if p.IgnoreLease {
			r.leaseN = prev.leaseN
		}
		if p.PrevKv {
			out += " prev=" + prev.String()
		}
	}
	m.write(r)
	return out
}

func (m *model) del(d *pb.DeleteRangeRequest) string {
	rows := m.live(d.Key, d.RangeEnd, m.head())
	for _, r := range rows {
		m.write(row{key: r.key, tomb: true})
	}
	if !d.PrevKv {
		return fmt.Sprintf("delete %d []", len(rows))
	}
	return fmt.Sprintf("delete %d %v", len(rows), rows)
}

func (m *model) compare(c *pb.Compare) bool {
	rows := m.live(c.Key, c.RangeEnd, m.rev)
	if len(rows) == 0 {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		rows = []row{{}}
	}
	for _, r := range rows {
		var d int
		switch c.Target {
		case pb.Compare_VALUE:
			d = strings.Compare(r.value, string(c.GetValue()))
		case pb.Compare_VERSION:
			d = int(r.ver - c.GetVersion())
		case pb.Compare_CREATE:
			d = int(r.create - c.GetCreateRevision())
		case pb.Compare_MOD:
			d = int(r.mod - c.GetModRevision())
		case pb.Compare_LEASE:
			d = int(r.leaseN - c.GetLease())
		}
		ok := map[pb.Compare_CompareResult]bool{
			pb.Compare_EQUAL: d == 0, pb.Compare_NOT_EQUAL: d != 0,
			pb.Compare_GREATER: d > 0, pb.Compare_LESS: d < 0,
		}[c.Result]
		if !ok {
			return false
		}
	}
	return true
}

// plan is a txn with its compares decided.
type plan struct {
	ok   bool
	ops  []*pb.RequestOp
	subs map[*pb.RequestOp]*plan
}

func (m *model) plan(t *pb.TxnRequest) *plan {
	p := &plan{ok: true, ops: t.Success, subs: map[*pb.RequestOp]*plan{}}
	for _, c := range t.Compare {
		p.ok = p.ok && m.compare(c)
	}
	if !p.ok {
		p.ops = t.Failure
	}
	for _, op := range p.ops {
		if n := op.GetRequestTxn(); n != nil {
			p.subs[op] = m.plan(n)
		}
	}
	return p
}

func (m *model) checkPlan(p *plan) error {
	for _, op := range p.ops {
		var err error
		if r := op.GetRequestRange(); r != nil && r.Revision != 0 {
			if r.Revision > m.rev {
				err = ErrFutureRev
			} else if r.Revision < m.compacted {
				err = ErrCompacted
			}
		}
		if put := op.GetRequestPut(); put != nil {
			err = m.checkPut(put)
		}
		if sub := p.subs[op]; sub != nil {
			err = m.checkPlan(sub)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *model) run(p *plan) string {
	var out []string
	for _, op := range p.ops {
		var s string
		if r := op.GetRequestRange(); r != nil {
			s, _ = m.rangeKeys(r, m.head())
		} else if put := op.GetRequestPut(); put != nil {
			s = m.put(put)
		} else if d := op.GetRequestDeleteRange(); d != nil {
			s = m.del(d)
		} else {
			out = append(out, m.run(p.subs[op])+"@0")
			continue
		}
		out = append(out, fmt.Sprintf("%s@%d", s, m.head()))
	}
	return fmt.Sprintf("txn %v (%s)", p.ok, strings.Join(out, "; "))
}

func (m *model) hasAlarm(t pb.AlarmType) bool {
	for k := range m.alarms {
		if k.typ == t {
			return true
		}
	}
	return false
}

// apply answers what render answers for the State.
func (m *model) apply(e Entry) string {
	body, err := m.dispatch(e)
	if err != nil {
		body = ""
	}
	events := m.events
	m.events = nil
	if len(events) > 0 {
		m.rev++
	}
	return fmt.Sprintf("rev=%d err=%v %s %v", m.rev, err, body, events)
}

func (m *model) dispatch(e Entry) (string, error) {
	r := e.Request
	if m.hasAlarm(pb.AlarmType_CORRUPT) && (r.Range != nil || r.Put != nil || r.DeleteRange != nil || r.Txn != nil ||
		r.Compaction != nil || r.LeaseGrant != nil || r.LeaseRevoke != nil) {
		return "", ErrCorrupt
	}
	if m.hasAlarm(pb.AlarmType_NOSPACE) && m.growth(r) > 0 {
		return "", ErrNoSpace
	}
	switch {
	case r.Range != nil:
		return m.rangeKeys(r.Range, m.rev)
	case r.Put != nil:
		if err := m.checkPut(r.Put); err != nil {
			return "", err
		}
		return m.put(r.Put), nil
	case r.DeleteRange != nil:
		return m.del(r.DeleteRange), nil
	case r.Txn != nil:
		p := m.plan(r.Txn)
		if err := m.checkPlan(p); err != nil {
			return "", err
		}
		return m.run(p), nil
	case r.Compaction != nil:
		switch c := r.Compaction.Revision; {
		case c <= m.compacted:
			return "", ErrCompacted
		case c > m.rev:
			return "", ErrFutureRev
		}
		m.compacted = r.Compaction.Revision
		return fmt.Sprintf("compact %d", m.compacted), nil
	case r.Alarm != nil:
		return m.alarm(r.Alarm), nil
	}
	return m.lease(e)
}

// growth does what the command says to a copy, and compares what the live keys
// count. What holds no put may not be asked for in the first place.
func (m *model) growth(r *pb.InternalRaftRequest) int {
	after := *m
	after.rows, after.events = slices.Clone(m.rows), nil
	switch {
	case r.Put != nil:
		after.put(r.Put)
	case r.Txn != nil:
		after.run(after.plan(r.Txn))
	case r.DeleteRange != nil:
		after.del(r.DeleteRange)
	}
	return after.charges() - m.charges()
}

// charges counts a key with 33 bytes of a row, and its value in 64 bytes.
func (m *model) charges() int {
	sum := 0
	for _, r := range m.live([]byte{0}, []byte{0}, m.head()) {
		sum += 33 + len(r.key) + (len(r.value)+63)/64*64
	}
	return sum
}

func (m *model) alarm(a *pb.AlarmRequest) string {
	k := alarmKey{a.Alarm, a.MemberID}
	var hit []string
	switch a.Action {
	case pb.AlarmRequest_ACTIVATE:
		m.alarms[k] = true
		hit = []string{fmt.Sprint(k.typ, k.member)}
	case pb.AlarmRequest_DEACTIVATE:
		if m.alarms[k] {
			hit = []string{fmt.Sprint(k.typ, k.member)}
		}
		delete(m.alarms, k)
	}
	return fmt.Sprintf("alarm %v", hit)
}

func (m *model) lease(e Entry) (string, error) {
	r := e.Request
	if g := r.LeaseGrant; g != nil {
		if _, ok := m.leases[g.ID]; ok {
			return "", ErrLeaseExists
		}
		if g.TTL > 9e9 {
			return "", ErrLeaseTTLTooLarge
		}
		m.leases[g.ID] = Lease{ID: LeaseID(g.ID), TTL: max(2, g.TTL)}
		return fmt.Sprintf("grant %d %d", g.ID, max(2, g.TTL)), nil
	}
	if c := r.LeaseCheckpoint; c != nil {
		for _, x := range c.Checkpoints {
			if l, ok := m.leases[x.ID]; ok {
				l.Remaining = x.Remaining_TTL
				m.leases[x.ID] = l
			}
		}
		return "checkpoint", nil
	}
	id := r.LeaseRevoke.ID
	if _, ok := m.leases[id]; !ok {
		return "", ErrLeaseNotFound
	}
	for _, k := range m.leaseKeys(id) {
		m.write(row{key: k, tomb: true})
	}
	delete(m.leases, id)
	return fmt.Sprintf("revoke %d", id), nil
}

func (m *model) leaseKeys(id int64) []string {
	var keys []string
	for _, r := range m.live([]byte{0}, []byte{0}, m.rev) {
		if r.leaseN == id {
			keys = append(keys, r.key)
		}
	}
	return keys
}

// dead tells whether compaction has removed a row.
func (m *model) dead(r row) bool {
	if r.tomb && r.mod < m.compacted {
		return true
	}
	for _, x := range m.rows {
		if x.key == r.key && x.mod <= m.compacted && (x.mod > r.mod || x.mod == r.mod && x.sub > r.sub) {
			return true
		}
	}
	return false
}

// stored answers the rows that a bucket holds once compaction is through.
func (m *model) stored() []row {
	return slices.DeleteFunc(slices.Clone(m.rows), m.dead)
}

func (r row) version() *Version {
	if r.tomb {
		return newTombstone([]byte(r.key), Revision(r.mod), uint32(r.sub))
	}
	return newPut([]byte(r.key), []byte(r.value), Revision(r.create), Revision(r.mod), uint32(r.sub), r.ver, LeaseID(r.leaseN))
}

// hashKV follows etcd's storage/mvcc/hash.go over the stored rows.
func (m *model) hashKV(rev int64) uint32 {
	keep := m.live([]byte{0}, []byte{0}, rev)
	sum := crc32.Update(0, castagnoli, []byte("key"))
	for _, r := range m.stored() {
		kept := slices.ContainsFunc(keep, func(k row) bool { return k.mod == r.mod && k.sub == r.sub })
		switch {
		case r.mod > rev,
			r.mod <= m.compacted && len(keep) > 0 && !kept,
			r.mod == m.compacted && r.tomb:
			continue
		}
		v := r.version()
		sum = crc32.Update(sum, castagnoli, v.RowKey().Append(nil))
		sum = crc32.Update(sum, castagnoli, v.RowValue())
	}
	return sum
}
