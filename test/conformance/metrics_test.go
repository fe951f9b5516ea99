package conformance

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kubeshim/shim/test/conformance/script"
	"github.com/kubeshim/shim/test/internal/peers"
)

// loads are etcdctl commands, with their input. Those behind a ! fail.
var loads = []struct{ args, input string }{
	{"! lease keep-alive --once 123", ""},
	{"! get a --rev 99", ""},
	{"! compact 99", ""},
	{"! put a 1 --lease=123", ""},
	{"! lease revoke 123", ""},
	{"! put large", strings.Repeat("x", 1600000)},
	{"! txn", "\nput d 1\nput d 2\n\n\n"},
	{"! txn", "\nget a --rev 99\n\n\n"},
	{"put a 1", ""},
	{"put a 2 --prev-kv", ""},
	{"get a --rev 2", ""},
	{"get a --consistency=s", ""},
	// What an apiserver writes: compare, and one operation.
	{"txn", "mod(\"b\") = \"0\"\n\nput b 1\n\nget b\n\n"},
	{"txn", "mod(\"b\") = \"0\"\n\nput b 2\n\nget b\n\n"},
	{"txn", "mod(\"b\") > \"0\"\nmod(\"a\") > \"0\"\n\nput b 2\nput c 1\ndel a\n\nget b\n\n"},
	{"txn", "mod(\"b\") > \"0\"\n\nget b\nget c\n\nget b\n\n"},
	{"txn", "mod(\"b\") > \"0\"\n\nget b\n\n\n"},
	{"del c --prev-kv", ""},
	{"lease grant 1000 -w=fields", ""},
	{"compact 4 --physical", ""},
	{"defrag", ""},
}

// countedAlike are the counters which that load leaves equal, however slow the machine is.
var countedAlike = []string{
	"etcd_mvcc_put_total", "etcd_mvcc_delete_total", "etcd_mvcc_range_total", "etcd_mvcc_txn_total",
	"etcd_debugging_lease_granted_total", "etcd_debugging_mvcc_current_revision", "etcd_debugging_mvcc_compact_revision",
	"etcd_debugging_mvcc_keys_total", "etcd_debugging_mvcc_total_put_size_in_bytes", "etcd_debugging_lease_ttl_total_count",
	"etcd_disk_backend_defrag_duration_seconds_count", "etcd_disk_defrag_inflight", "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count",
	`etcd_server_request_duration_seconds_count{success="true",type="Put"}`,
	`etcd_server_request_duration_seconds_count{success="true",type="DeleteRange"}`,
	`etcd_server_request_duration_seconds_count{success="true",type="Compaction"}`,
	`etcd_server_request_duration_seconds_count{success="true",type="LeaseGrant"}`,
	`etcd_server_request_duration_seconds_count{success="true",type="LeaseRevoke"}`,
	`etcd_server_request_duration_seconds_count{success="false",type="Range"}`,
	`etcd_server_request_duration_seconds_count{success="true",type="Txn"}`,
	`etcd_server_request_duration_seconds_count{success="true",type="ReadonlyTxn"}`,
	`grpc_server_msg_received_total{grpc_method="LeaseKeepAlive",grpc_service="etcdserverpb.Lease",grpc_type="bidi_stream"}`,
	`grpc_server_msg_sent_total{grpc_method="LeaseKeepAlive",grpc_service="etcdserverpb.Lease",grpc_type="bidi_stream"}`,
	`grpc_server_msg_received_total{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"}`,
	`grpc_server_msg_sent_total{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"}`,
	`grpc_server_msg_sent_total{grpc_method="Compact",grpc_service="etcdserverpb.KV",grpc_type="unary"}`,
	"etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_is_learner", "etcd_server_quota_backend_bytes",
	"etcd_server_read_indexes_failed_total", "etcd_server_proposals_failed_total", "etcd_server_leader_changes_seen_total",
	`etcd_server_feature_enabled{name="AllAlpha",stage="ALPHA"}`, `etcd_server_feature_enabled{name="AllBeta",stage="BETA"}`,
	`etcd_server_version{server_version="3.7.3"}`, `etcd_cluster_version{cluster_version="3.7"}`,
}

// scrape is what /metrics says: by name, type and label names; by series, value.
type scrape struct{ kinds, values map[string]string }

var sample = regexp.MustCompile(`^(\w+)(?:\{(.*)\})? (\S+)$`)
var labelName = regexp.MustCompile(`(\w+)="(?:[^"\\]|\\.)*"`)

// parseScrape reads the text format. The buckets and quantiles of one name are
// of that name, and their own labels are none of its.
func parseScrape(text string) (scrape, error) {
	s := scrape{kinds: map[string]string{}, values: map[string]string{}}
	labels := map[string][]string{}
	var name string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			var kind string
			name, kind, _ = strings.Cut(rest, " ")
			s.kinds[name] = kind
			continue
		}
		if line == "" || line[0] == '#' {
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil || !strings.HasPrefix(m[1], name) {
			return s, fmt.Errorf("line %q below %s", line, name)
		}
		s.values[strings.TrimSuffix(line, " "+m[3])] = m[3]
		for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" && l[1] != "quantile" && !slices.Contains(labels[name], l[1]) {
				labels[name] = append(labels[name], l[1])
			}
		}
	}
	for name, l := range labels {
		slices.Sort(l)
		s.kinds[name] += fmt.Sprint(l)
	}
	return s, nil
}

const rangeTotal = "etcd_mvcc_range_total"

// scraped puts the load on a server and scrapes it.
func scraped(t *testing.T, binary string) scrape {
	t.Helper()
	s, err := script.Start(binary, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	before := scrapeOnce(t, s, "/metrics").values[rangeTotal]
	etcdctl := peers.Path(t, "etcdctl")
	for _, l := range loads {
		args, fails := strings.CutPrefix(l.args, "! ")
		cmd := exec.Command(etcdctl, append([]string{"--endpoints", s.ClientAddress()}, strings.Fields(args)...)...)
		cmd.Stdin = strings.NewReader(l.input)
		if out, err := cmd.CombinedOutput(); (err != nil) != fails {
			t.Fatalf("etcdctl %s: %v\n%s", l.args, err, out)
		}
	}
	got := scrapeOnce(t, s, "/health", "/readyz", "/livez", "/metrics")
	got.values[rangeTotal] += " after " + before
	return got
}

// scrapeOnce gets paths, the last of which is that of the metrics.
func scrapeOnce(t *testing.T, s *script.Server, paths ...string) (got scrape) {
	t.Helper()
	for _, path := range paths {
		resp, err := http.Get("http://" + s.ClientAddress() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, resp.Status, err)
		}
		if path != "/metrics" {
			continue
		}
		if got, err = parseScrape(string(body)); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

// TestMetrics holds the metrics of both servers against a list that says of
// each name who has it, and why shim does not.
func TestMetrics(t *testing.T) {
	list, err := os.ReadFile("testdata/metrics.list")
	if err != nil {
		t.Fatal(err)
	}
	etcd, shim := scraped(t, peers.Path(t, "etcd")), scraped(t, shimPath(t))
	listed := map[string]bool{}
	for line := range strings.Lines(string(list)) {
		if line[0] == '#' {
			continue
		}
		name, what, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if listed[name] {
			t.Errorf("%s is listed twice", name)
		}
		listed[name] = true
		inEtcd, inShim := etcd.kinds[name], shim.kinds[name]
		why, absent := strings.CutPrefix(what, "absent: ")
		switch {
		case what == "served" && (inEtcd == "" || inShim != inEtcd):
			t.Errorf("%s: is %q on etcd and %q on shim", name, inEtcd, inShim)
		case what == "own" && (inEtcd != "" || inShim == ""):
			t.Errorf("%s: want it on shim alone; it is %q on etcd and %q on shim", name, inEtcd, inShim)
		case absent && (why == "" || inEtcd == "" || inShim != ""):
			t.Errorf("%s: want it on etcd alone, and a reason; it is %q on etcd and %q on shim", name, inEtcd, inShim)
		case !absent && what != "served" && what != "own":
			t.Errorf("%s: %q is neither served, own nor absent", name, what)
		}
	}
	for who, s := range map[string]scrape{"etcd": etcd, "shim": shim} {
		for name, kind := range s.kinds {
			if !listed[name] {
				t.Errorf("%s: %s has it, as %s, and the list does not", name, who, kind)
			}
		}
	}
	for _, series := range countedAlike {
		if e, s := etcd.values[series], shim.values[series]; e == "" || e != s {
			t.Errorf("%s is %q on etcd and %q on shim", series, e, s)
		}
	}
}
