package etcdapi

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
)

const (
	socketProtocol = "Sec-Websocket-Protocol"
	// socketTokenCookie may hold the token of a browser's WebSocket, which can
	// set no header.
	socketTokenCookie = "token"
)

// socketUpgrader lets any origin in, as etcd does: --cors is not asked for
// WebSockets.
var socketUpgrader = websocket.Upgrader{
	ReadBufferSize: socketBufferBytes, WriteBufferSize: socketBufferBytes,
	CheckOrigin: func(*http.Request) bool { return true },
}

// sockets are the WebSockets that are open. The zero value has none.
type sockets struct {
	mu     sync.Mutex
	open   map[*websocket.Conn]struct{} // guarded by mu
	closed bool                         // guarded by mu
	served sync.WaitGroup
}

// add is false when no more are served.
func (s *sockets) add(c *websocket.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.open == nil {
		s.open = make(map[*websocket.Conn]struct{})
	}
	s.open[c] = struct{}{}
	s.served.Add(1)
	return true
}

func (s *sockets) remove(c *websocket.Conn) {
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	s.served.Done()
}

// close cuts off all, those too whose client does not read, and waits for their calls to end.
func (s *sockets) close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		_ = c.NetConn().Close()
	}
	s.mu.Unlock()
	s.served.Wait()
}

func isSocket(r *http.Request) bool { return websocket.IsWebSocketUpgrade(r) }

// serveSocket serves one call over a WebSocket: each message of the client is a
// message of the call, each line of the answer a message to the client. This
// goroutine runs the call and writes; a second one reads.
func (g *Gateway) serveSocket(w http.ResponseWriter, r *http.Request) {
	protocol := r.Header.Get(socketProtocol)
	var answer http.Header
	if strings.HasPrefix(protocol, "Bearer") {
		answer = http.Header{socketProtocol: {"Bearer"}}
	}
	c, err := socketUpgrader.Upgrade(w, r, answer)
	if err != nil {
		return // Upgrade has answered
	}
	if !g.sockets.add(c) {
		_ = c.Close()
		return
	}
	defer g.sockets.remove(c)
	c.SetReadLimit(g.messageMax)
	ctx, cancel := context.WithCancel(r.Context())
	body, feed := io.Pipe()
	read := make(chan struct{})
	go func() {
		defer close(read)
		readSocket(c, feed)
		cancel()
	}()
	defer func() {
		cancel()
		_ = body.Close()
		_ = c.Close()
		<-read
	}()
	call := r.Clone(ctx)
	call.Method, call.Body, call.ContentLength = http.MethodPost, body, -1
	call.Header = socketHeader(r, protocol)
	out := &socketWriter{c: c, header: make(http.Header)}
	g.answer(out, call, func() { _ = c.NetConn().Close() })
	out.end()
}

// socketHeader is what a call gets of the header of its WebSocket: the origin,
// and the token, which browsers put where they can.
func socketHeader(r *http.Request, protocol string) http.Header {
	h := make(http.Header)
	if protocol != "" {
		token := ""
		if _, t, ok := strings.Cut(protocol, "Bearer,"); ok {
			token = "Bearer " + strings.Trim(t, " ")
		}
		h.Set("Authorization", token)
	}
	for _, name := range []string{"Origin", "Referer"} {
		if v := r.Header.Get(name); v != "" {
			h.Set(name, v)
		}
	}
	if c, err := r.Cookie(socketTokenCookie); err == nil {
		h.Set("Authorization", "Bearer "+c.Value)
	}
	return h
}

// readSocket feeds the messages to the call, a line each, until either ends.
func readSocket(c *websocket.Conn, feed *io.PipeWriter) {
	defer feed.Close()
	for {
		_, message, err := c.ReadMessage()
		if err != nil {
			return
		}
		if _, err := feed.Write(append(message, '\n')); err != nil {
			return
		}
	}
}

// socketWriter is the http.ResponseWriter of a call over a WebSocket. It is used
// by the goroutine of the call alone. Status and header have no place there.
type socketWriter struct {
	c      *websocket.Conn
	header http.Header
	line   []byte // begun
}

func (w *socketWriter) Header() http.Header { return w.header }
func (w *socketWriter) WriteHeader(int)     {}

// Flush implements http.Flusher: a line is on its way as soon as it is whole.
func (w *socketWriter) Flush() {}

func (w *socketWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			w.line = append(w.line, rest...)
			break
		}
		w.line = append(w.line, rest[:end]...)
		rest = rest[end+1:]
		if err := w.send(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (w *socketWriter) send() error {
	if len(w.line) == 0 {
		return nil
	}
	err := w.c.WriteMessage(websocket.TextMessage, w.line)
	w.line = w.line[:0]
	return err
}

// end sends what no end of line followed: the answer to a unary call.
func (w *socketWriter) end() { _ = w.send() }
