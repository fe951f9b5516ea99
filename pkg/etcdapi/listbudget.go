package etcdapi

import (
	"container/list"
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
)

// listBudget bounds what lists hold that their clients have not taken yet. A
// list of any size takes a few pointers, but those keep every value alive that is
// replaced meanwhile, or that should leave memory. So a list borrows its size
// before it looks at the store, waits for its turn if too much is lent, in the
// order of arrival, and gives back chunk by chunk as they are sent.
//
//   - An answer below listFreeBytes neither borrows nor waits.
//   - A list that is larger than the budget goes when nothing else is lent.
//   - What becomes larger than it was thought has the rest without waiting.
//   - The answer to a write has been earned: it borrows without waiting.
//   - Who waits holds no View. A call that ends leaves the queue.
//   - A list of the JSON gateway borrows several times its size, and gives it back
//     as the client takes the JSON (gateway_request.go).
//   - What is lent is not compressed, whoever asks for it.
//   - While others wait, a loan has to shrink by listRateMin after listGrace, or
//     the client loses its connection: so nobody holds a share for ever.
//   - The end of a connection gives back all that was lent to it, since the
//     transport forgets what it had not sent. What it forgets elsewhere comes back
//     with the collector.
//
// mu guards everything here and in the loans. It is held for a few comparisons
// per chunk; only once a second, while somebody waits, for a look at each loan.
type listBudget struct {
	limit int64

	mu      sync.Mutex
	used    int64
	waiting list.List // of *listWaiter, first come first
	loans   map[*loan]struct{}
	timer   *time.Timer // runs while somebody waits
	stats   ListStats
}

// ListStats are the figures of the budget of lists.
type ListStats struct {
	Limit   int64         // bytes that may be lent
	Lent    int64         // bytes that lists hold at the moment
	Loans   uint64        // lists that have borrowed
	Waiting int           // lists that wait for their turn at the moment
	Waited  uint64        // lists that have had to wait
	Wait    time.Duration // for how long, in all
	Dropped uint64        // connections closed because their client did not read while others waited
}

// listWaiter is a list that waits for its turn.
type listWaiter struct {
	bytes  int64
	holder *listHolder
	lent   *grant
	turn   chan struct{} // closed when lent is set
}

func newListBudget(limit int64) *listBudget {
	return &listBudget{limit: limit, loans: make(map[*loan]struct{})}
}

// acquire borrows bytes for a list and waits until there are so many. The error
// is that of the context, or that too many wait. Few bytes need no grant: nil.
func (b *listBudget) acquire(ctx context.Context, bytes int64) (*grant, error) {
	holder := holderOf(ctx)
	if bytes = holder.takes(bytes); bytes < listFreeBytes {
		return nil, nil
	}
	sendPlain(ctx)
	b.mu.Lock()
	if b.waiting.Len() == 0 && b.fits(bytes) {
		g := b.lend(bytes, holder)
		b.mu.Unlock()
		holder.add(g.loan)
		return g, nil
	}
	if b.waiting.Len() >= listsWaitingMax {
		b.mu.Unlock()
		return nil, errTooManyRequests
	}
	w := &listWaiter{bytes: bytes, holder: holder, turn: make(chan struct{})}
	place := b.waiting.PushBack(w)
	b.stats.Waited++
	b.watch()
	b.mu.Unlock()
	began := time.Now()
	select {
	case <-w.turn:
	case <-ctx.Done():
	}
	b.mu.Lock()
	b.stats.Wait += time.Since(began)
	if w.lent == nil {
		b.waiting.Remove(place)
		b.admit() // the next one may be smaller
	}
	b.mu.Unlock()
	if w.lent == nil {
		return nil, ctx.Err()
	}
	holder.add(w.lent.loan)
	return w.lent, nil
}

// force borrows without waiting.
func (b *listBudget) force(ctx context.Context, bytes int64) *grant {
	holder := holderOf(ctx)
	if bytes = holder.takes(bytes); bytes < listFreeBytes {
		return nil
	}
	sendPlain(ctx)
	b.mu.Lock()
	g := b.lend(bytes, holder)
	b.mu.Unlock()
	holder.add(g.loan)
	return g
}

// sendPlain has the answers to a call not be compressed. gRPC would do that on the
// handler's goroutine, with all of an answer at once: a list would be encoded, and
// its loan given back, long before it is sent.
func sendPlain(ctx context.Context) {
	call, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ RecvCompress() string })
	if ok && call.RecvCompress() != "" {
		_ = grpc.SetSendCompressor(ctx, encoding.Identity) // fails if a stream has begun to answer
	}
}

// fits tells whether there are so many bytes. The caller holds mu, here and below.
func (b *listBudget) fits(bytes int64) bool { return b.used+min(bytes, b.limit) <= b.limit }

// admit lets those in whose turn it is.
func (b *listBudget) admit() {
	for e := b.waiting.Front(); e != nil; e = b.waiting.Front() {
		w := e.Value.(*listWaiter)
		if !b.fits(w.bytes) {
			return
		}
		b.waiting.Remove(e)
		w.lent = b.lend(w.bytes, w.holder)
		close(w.turn)
	}
}

// lend makes a loan. The caller tells the holder of it.
func (b *listBudget) lend(bytes int64, holder *listHolder) *grant {
	l := &loan{budget: b, holder: holder, unlent: bytes}
	l.expect(time.Now())
	b.used += bytes
	b.stats.Loans++
	b.loans[l] = struct{}{}
	g := &grant{l}
	runtime.AddCleanup(g, (*loan).end, l)
	return g
}

// watch looks after the loans from the first one on that waits.
func (b *listBudget) watch() {
	if b.timer != nil {
		return
	}
	now := time.Now()
	for l := range b.loans {
		l.expect(now)
	}
	b.timer = time.AfterFunc(listLookInterval, b.look)
}

// look closes the connections of those who hold what others wait for and do not
// read.
func (b *listBudget) look() { b.lookAt(time.Now()) }

func (b *listBudget) lookAt(now time.Time) {
	var slow []*loan
	b.mu.Lock()
	if b.waiting.Len() == 0 {
		b.timer = nil
		b.mu.Unlock()
		return
	}
	b.timer = time.AfterFunc(listLookInterval, b.look)
	for l := range b.loans {
		if l.slow(now) {
			slow = append(slow, l)
		}
	}
	b.stats.Dropped += uint64(len(slow))
	b.mu.Unlock()
	for _, l := range slow {
		l.holder.dropAll()
		l.end()
	}
}

// Stats answers the figures.
func (b *listBudget) Stats() ListStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Limit, s.Lent, s.Waiting = b.limit, b.used, b.waiting.Len()
	return s
}

// grant is a loan as a list has it. When nothing holds it any more, the handler
// and all chunks being gone, what is left of the loan comes back. nil is the grant
// of a list that needs none.
type grant struct{ *loan }

// hold has the parts of an answer give back what they take.
func (g *grant) hold(a *reply) {
	if g == nil {
		return
	}
	keeps := g.holder.keep(g)
	n := int64(0)
	for _, buf := range a.bufs {
		if p := partOf(buf); p != nil {
			if !keeps {
				p.grant = g
			}
			n += int64(p.size)
		}
	}
	g.held(g.holder.takes(n))
}

// settle gives back what no part of an answer has taken: there are no more.
func (g *grant) settle() {
	if g != nil {
		g.settled()
	}
}

// sent gives back what a part had.
func (g *grant) sent(bytes int) {
	if g != nil {
		g.freed(int64(bytes))
	}
}

// loan is what is lent to one list: unlent is for parts that are not made yet,
// out for those that are under way.
type loan struct {
	budget *listBudget
	holder *listHolder

	unlent, out int64
	done        bool // nothing is to be given back any more
	final       bool // no more parts are made

	// What the loan was at some moment, and which moment: see slow.
	then   time.Time
	before int64
}

// expect begins to measure how fast the client reads.
func (l *loan) expect(now time.Time) { l.then, l.before = now, l.unlent+l.out }

// slow tells that the client takes less than it has to.
func (l *loan) slow(now time.Time) bool {
	over := now.Sub(l.then) - listGrace
	return over > 0 && float64(l.before-l.unlent-l.out) < over.Seconds()*float64(l.holder.takes(listRateMin))
}

func (l *loan) held(bytes int64) {
	b := l.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.done {
		return
	}
	if more := bytes - l.unlent; more > 0 {
		b.used += more
		l.unlent += more
		l.before += more
	}
	l.unlent -= bytes
	l.out += bytes
}

func (l *loan) settled() {
	l.change(func() {
		l.budget.used -= l.unlent
		l.unlent, l.final = 0, true
	})
}

func (l *loan) freed(bytes int64) {
	l.change(func() {
		l.budget.used -= bytes
		l.out -= bytes
	})
}

// end gives everything back. It may be called again.
func (l *loan) end() {
	l.change(func() {
		l.budget.used -= l.unlent + l.out
		l.unlent, l.out, l.final = 0, 0, true
	})
}

// change makes room, which is for those who wait.
func (l *loan) change(how func()) {
	b := l.budget
	b.mu.Lock()
	if l.done {
		b.mu.Unlock()
		return
	}
	how()
	if l.final && l.out == 0 {
		l.done = true
		delete(b.loans, l)
	}
	b.admit()
	done := l.done
	b.mu.Unlock()
	if done {
		l.holder.remove(l)
	}
}

// listHolder is what the loans end with: a connection, or a request that came by
// way of net/http. nil: they end with what holds the grant.
type listHolder struct {
	drop  func() // breaks it off, without waiting for anybody
	keeps bool   // a request of the gateway, which gives back what its client takes

	mu     sync.Mutex
	ended  bool
	loans  map[*loan]struct{}
	grants []*grant // that it keeps
}

// takes is what a list of so many bytes borrows.
func (h *listHolder) takes(bytes int64) int64 {
	if h == nil || !h.keeps {
		return bytes
	}
	return bytes * gatewayListFactor
}

// keep holds a grant until the end, if that is not up to the parts of an answer.
func (h *listHolder) keep(g *grant) bool {
	if h == nil || !h.keeps {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended && !slices.Contains(h.grants, g) {
		h.grants = append(h.grants, g)
	}
	return true
}

// kept answers the loans, and what of each is under way.
func (h *listHolder) kept() map[*loan]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.loans) == 0 {
		return nil
	}
	out := make(map[*loan]int64, len(h.loans))
	for l := range h.loans {
		l.budget.mu.Lock()
		out[l] = l.out
		l.budget.mu.Unlock()
	}
	return out
}

// add ends the loan at once if its holder has ended.
func (h *listHolder) add(l *loan) {
	if h == nil {
		return
	}
	h.mu.Lock()
	ended := h.ended
	if !ended {
		if h.loans == nil {
			h.loans = make(map[*loan]struct{})
		}
		h.loans[l] = struct{}{}
	}
	h.mu.Unlock()
	if ended {
		l.end()
	}
}

func (h *listHolder) remove(l *loan) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.loans, l)
}

// dropAll breaks the connection or the request off.
func (h *listHolder) dropAll() {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.drop()
	}
}

// end gives back all that the holder has.
func (h *listHolder) end() {
	h.mu.Lock()
	h.ended = true
	loans := h.loans
	h.loans, h.grants = nil, nil
	h.mu.Unlock()
	for l := range loans {
		l.end()
	}
}

// listHolderKey is where the context of a request that came by way of net/http
// has its holder.
type listHolderKey struct{}

// holderOf is what a loan of a call ends with.
func holderOf(ctx context.Context) *listHolder {
	if h, ok := ctx.Value(listHolderKey{}).(*listHolder); ok {
		return h
	}
	switch c := socketOf(ctx).(type) {
	case *conn:
		return &c.lists
	case *gatewayPipe:
		return c.requests.of(ctx)
	}
	return nil
}
