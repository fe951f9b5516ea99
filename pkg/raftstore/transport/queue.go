package transport

import "sync"

// queue holds the messages of one lane to one peer, in order and within its bounds. Anybody puts, one goroutine takes. While it is shut
// nothing goes in.
type queue struct {
	mu       sync.Mutex
	items    []outgoing
	head     int // items before it were taken
	bytes    int // of the items from head on
	open     bool
	itemsMax int
	bytesMax int
	wake     chan struct{} // capacity 1
}

func newQueue(itemsMax, bytesMax int) *queue {
	return &queue{itemsMax: itemsMax, bytesMax: bytesMax, wake: make(chan struct{}, 1)}
}

// put is false when the queue is shut or full. One message of any size fits into an empty queue. Who puts sees to it that somebody takes
// (link.push).
func (q *queue) put(o outgoing) bool {
	q.mu.Lock()
	waiting := len(q.items) - q.head
	if !q.open || waiting >= q.itemsMax || (waiting > 0 && q.bytes+o.bytes > q.bytesMax) {
		q.mu.Unlock()
		return false
	}
	if q.head > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, o)
	q.bytes += o.bytes
	q.mu.Unlock()
	return true
}

// take appends the oldest messages to dst: at least one, if there is any, and no more than fit into bytes.
func (q *queue) take(dst []outgoing, bytes int) []outgoing {
	q.mu.Lock()
	defer q.mu.Unlock()
	first := q.head
	for q.head < len(q.items) {
		size := q.items[q.head].bytes
		if bytes -= size; bytes < 0 && q.head > first {
			break
		}
		q.bytes -= size
		q.head++
	}
	dst = append(dst, q.items[first:q.head]...)
	clear(q.items[first:q.head])
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return dst
}

// size is the number of bytes that wait.
func (q *queue) size() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// unshut lets messages in; shut drops those that wait, and says how many they were.
func (q *queue) unshut() {
	q.mu.Lock()
	q.open = true
	q.mu.Unlock()
}

func (q *queue) shut() (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	dropped = len(q.items) - q.head
	q.items, q.head, q.bytes, q.open = nil, 0, 0, false
	return dropped
}

// poke wakes a goroutine that looks by itself for what to do.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
