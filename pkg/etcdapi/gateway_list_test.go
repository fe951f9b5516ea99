package etcdapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kubeshim/shim/pkg/raftstore"
)

const listJSON = `{"key":"aw==","range_end":"bA=="}` // of k to l

// rawList asks for everything as JSON on a connection of its own, of which next to nothing is read.
func rawList(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.(*net.TCPConn).SetReadBuffer(sleeperBytes)
	if _, err := io.WriteString(c, "POST /v3/kv/range HTTP/1.1\r\nHost: "+address+"\r\nContent-Length: 33\r\n\r\n"+listJSON); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestGatewayListsBorrow: a list of the gateway's is lent several times its size until its client has taken it; whoever does not read while
// others wait is broken off, and what a client was sent that goes away comes back.
func TestGatewayListsBorrow(t *testing.T) {
	const keys, size = 500, 8 << 10
	ts, _, _ := listServer(t, keys, 1<<20)
	_, web := gatewayOf(t, ts)
	address := web.Listener.Addr().String()
	large := func(s ListStats) bool { return s.Lent > keys*size*(gatewayListFactor-1) }

	slow := rawList(t, address)
	ts.lists.await(large)
	read := make(chan int64, 1)
	go func() {
		resp, err := http.Post(web.URL+"/v3/kv/range", "", strings.NewReader(listJSON))
		if err != nil {
			t.Error(err)
		} else {
			var r struct{ Kvs []struct{ Value []byte } }
			if err := json.NewDecoder(resp.Body).Decode(&r); err != nil || len(r.Kvs) != keys || len(r.Kvs[7].Value) != size {
				t.Errorf("%d keys, %v", len(r.Kvs), err)
			}
			resp.Body.Close()
		}
		read <- 0
	}()
	ts.lists.await(func(s ListStats) bool { return s.Waiting == 1 })
	ts.lists.lookAt(time.Now().Add(time.Hour))
	<-read
	ts.lists.await(func(s ListStats) bool { return s.Lent == 0 })
	if s := ts.lists.Stats(); s.Dropped != 1 || s.Waited != 1 {
		t.Errorf("figures: %+v", s)
	}
	if all, err := io.ReadAll(slow); int64(len(all)) >= keys*size*4/3 { // less than its JSON
		t.Errorf("who was broken off has %d bytes, %v", len(all), err)
	}

	away := rawList(t, address)
	ts.lists.await(large)
	lent := ts.lists.Stats().Lent
	if _, err := io.CopyN(io.Discard, bufio.NewReader(away), keys*size/2); err != nil {
		t.Fatal(err)
	}
	ts.lists.await(func(s ListStats) bool { return s.Lent < lent-keys*size })
	_ = away.Close()
	ts.lists.await(func(s ListStats) bool { return s.Lent == 0 })
}

// TestGatewayRowLost: a row that cannot be read fails the list that it is in, and nobody else who shares the gateway's connection.
func TestGatewayRowLost(t *testing.T) {
	dir := t.TempDir()
	ts := startServer(t, Options{}, func(c *raftstore.Config) {
		c.DataDir, c.Memory.Limit, c.Memory.HistoryBytes = dir, coldLimit, 64<<10
	})
	for i := range coldKeys {
		key := fmt.Sprintf("k%03d", i)
		if _, err := ts.cli.Put(within(t), key, strings.Repeat(key, 2<<10)); err != nil {
			t.Fatal(err)
		}
	}
	ts.chill(t)
	_, web := gatewayOf(t, ts)
	resp, err := http.Post(web.URL+"/v3/watch", "", strings.NewReader(`{"create_request":{"key":"dw=="}}`)) // w
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewReader(resp.Body)
	if line, err := events.ReadString('\n'); err != nil || !strings.Contains(line, "created") {
		t.Fatalf("watch: %s, %v", line, err)
	}
	if resp, body := postJSON(t, http.DefaultClient, web.URL+"/v3/kv/range", listJSON); resp.StatusCode != http.StatusOK {
		t.Fatalf("list: %s %.200s", resp.Status, body)
	}

	path := filepath.Join(dir, "member", "snap", "db")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(file, []byte(strings.Repeat("k007", 2<<10)))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("K"), int64(at)+100); err != nil {
		t.Fatal(err)
	}
	if resp, body := postJSON(t, http.DefaultClient, web.URL+"/v3/kv/range", listJSON); resp.StatusCode != http.StatusInternalServerError || !strings.Contains(body, errUnreadable.Error()) {
		t.Errorf("list with a row that is lost: %s %.200s", resp.Status, body)
	}
	if _, err := ts.cli.Put(within(t), "w", "1", clientv3.WithPrevKV()); err != nil {
		t.Fatal(err)
	}
	if line, err := events.ReadString('\n'); err != nil || !strings.Contains(line, "events") {
		t.Errorf("the watch beside it: %s, %v", line, err)
	}
	ts.lists.await(func(s ListStats) bool { return s.Lent == 0 })
}
