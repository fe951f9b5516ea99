package etcdapi

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
)

// gatewayRequestKey is the metadata of a call that says which request of the
// gateway it is of. What a client sends by that name comes before it.
const gatewayRequestKey = "shim-gateway-request"

// gatewayRequests are those that are being answered, by what the lists of each
// hold. The answer to a call of theirs is sent to the end of the pipe at once, and
// waits there, decoded and as JSON, for a client that may be slow: so what was lent
// to it comes back as the client takes the JSON, and with the end of the request.
type gatewayRequests struct {
	mu   sync.Mutex
	last uint64
	byID map[string]*listHolder
}

// begin gives a request its ID.
func (g *gatewayRequests) begin(h *listHolder) (id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byID == nil {
		g.byID = make(map[string]*listHolder)
	}
	g.last++
	id = strconv.FormatUint(g.last, 36)
	g.byID[id] = h
	return id
}

// end gives back what a request has.
func (g *gatewayRequests) end(id string) {
	g.mu.Lock()
	h := g.byID[id]
	delete(g.byID, id)
	g.mu.Unlock()
	h.end()
}

// of is the request of a call.
func (g *gatewayRequests) of(ctx context.Context) *listHolder {
	ids := metadata.ValueFromIncomingContext(ctx, gatewayRequestKey)
	if len(ids) == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.byID[ids[len(ids)-1]]
}

// gatewayPipe is the server's end of the gateway's connection.
type gatewayPipe struct {
	net.Conn
	requests *gatewayRequests
}

// byGateway tells whether a call came by the gateway.
func byGateway(ctx context.Context) bool {
	_, ok := socketOf(ctx).(*gatewayPipe)
	return ok
}

// gatewayIDKey is where the context of a request has its ID.
type gatewayIDKey struct{}

// annotate says to a call which request it is of.
func annotate(_ context.Context, r *http.Request) metadata.MD {
	id, _ := r.Context().Value(gatewayIDKey{}).(string)
	return metadata.Pairs(gatewayRequestKey, id)
}

// answer has the router answer a request. drop breaks the request off without
// waiting for anybody.
func (g *Gateway) answer(w http.ResponseWriter, r *http.Request, drop func()) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	h := &listHolder{keeps: true, drop: func() { drop(); cancel() }}
	id := g.requests.begin(h)
	defer g.requests.end(id)
	g.mux.ServeHTTP(&gatewayWriter{ResponseWriter: w, lists: h}, r.WithContext(context.WithValue(ctx, gatewayIDKey{}, id)))
}

// dropHTTP breaks off a request of net/http.
func dropHTTP(w http.ResponseWriter) func() {
	return func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Now()) }
}

// gatewayWriter gives back what was lent to an answer as the client takes it.
type gatewayWriter struct {
	http.ResponseWriter
	lists *listHolder
}

// Unwrap is for http.ResponseController.
func (w *gatewayWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher, which streams ask for.
func (w *gatewayWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Write writes a message in pieces. With each comes back what part it is of what
// is under way; with the last, all of it.
func (w *gatewayWriter) Write(p []byte) (n int, err error) {
	lent := w.lists.kept()
	for first := true; err == nil && (first || n < len(p)); first = false {
		var m int
		m, err = w.ResponseWriter.Write(p[n:min(n+gatewayPieceBytes, len(p))])
		for l, out := range lent {
			if m == 0 {
				break
			}
			back := int64(float64(out) * float64(m) / float64(len(p)-n))
			l.freed(back)
			lent[l] = out - back
		}
		n += m
	}
	return n, err
}
