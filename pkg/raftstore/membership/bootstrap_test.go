package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// hosts is a resolver that knows a few names.
func hosts(names map[string]string) Resolver {
	return func(_ context.Context, hostport string) (string, error) {
		host, port, _ := strings.Cut(hostport, ":")
		if ip, ok := names[host]; ok {
			return ip + ":" + port, nil
		}
		if host[0] >= '0' && host[0] <= '9' {
			return hostport, nil
		}
		return "", fmt.Errorf("no such host %s", host)
	}
}

func TestBootstrapErrors(t *testing.T) {
	resolver := hosts(map[string]string{"a": "10.0.0.1", "b": "10.0.0.2"})
	for cluster, want := range map[string]string{
		"":                          `couldn't find local name "a" in the initial cluster configuration`,
		"b=http://a:1":              `couldn't find local name "a" in the initial cluster configuration`,
		"a=http://a:1,b=http://a:1": "initial cluster a=http://a:1,b=http://a:1 has duplicate url",
		"a=ftp://a:1":               "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ftp://a:1",
		"a=http://a":                `error setting up initial cluster: URL address does not have the form "host:port": http://a`,
		"a=http://a:1/p":            "error setting up initial cluster: URL must not contain a path: http://a:1/p",
		"a=http://b:1": "--initial-cluster has a=http://b:1 but missing from --initial-advertise-peer-urls=http://a:1 " +
			`(resolved urls: "http://10.0.0.1:1" != "http://10.0.0.2:1")`,
		"a=http://a:1,a=http://b:1": "--initial-cluster has a=http://b:1 but missing from --initial-advertise-peer-urls=http://a:1 " +
			`(len(["http://a:1"]) != len(["http://a:1" "http://b:1"]))`,
	} {
		_, err := Bootstrap(t.Context(), Flags{Name: "a", InitialCluster: cluster, Token: "t", PeerURLs: []string{"http://a:1"}, Resolver: resolver})
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %q", cluster, err, want)
		}
	}
	_, err := Bootstrap(t.Context(), Flags{Name: "a", InitialCluster: "a=http://a:1", PeerURLs: []string{"http://a:1", "http://b:1"}, Resolver: resolver})
	want := "--initial-advertise-peer-urls has http://b:1 but missing from --initial-cluster=a=http://a:1,a=http://b:1"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// The advertised URL may have another form than the one in the initial cluster, if both lead to the same place.
func TestBootstrapResolves(t *testing.T) {
	resolver := hosts(map[string]string{"a.example": "10.0.0.1"})
	for _, c := range []struct{ cluster, advertised string }{
		{"a=http://a.example:1", "http://10.0.0.1:1"},
		{"a=http://10.0.0.1:1", "http://a.example:1"},
		{"a=http://[::1]:1", "http://[0:0::1]:1"},
		{"a=http://a.example:1,a=unix://localhost:2", "unix://localhost:2,http://10.0.0.1:1"},
	} {
		s, err := Bootstrap(t.Context(), Flags{Name: "a", InitialCluster: c.cluster, Token: "t", PeerURLs: strings.Split(c.advertised, ","), Resolver: resolver})
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if got := InitialClusterFromName("a", s.Self.PeerURLs); got != c.cluster {
			t.Errorf("%+v: the member has %s", c, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	never := func(context.Context, string) (string, error) {
		asked++
		cancel()
		return "", errors.New("no such host")
	}
	_, err := Bootstrap(ctx, Flags{Name: "a", InitialCluster: "a=http://a.example:1", PeerURLs: []string{"http://10.0.0.1:1"}, Resolver: never})
	if err == nil || !strings.HasSuffix(err.Error(), `(failed to resolve "http://10.0.0.1:1" (no such host))`) || asked != 1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

func TestJoin(t *testing.T) {
	resolver := hosts(map[string]string{"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"})
	running := []Member{
		{ID: 7, Name: "a", PeerURLs: []string{"http://a:1"}, ClientURLs: []string{"http://a:2"}},
		{ID: 9, PeerURLs: []string{"http://10.0.0.3:1"}},
		{ID: 8, Name: "b", PeerURLs: []string{"http://b:1"}},
	}
	var asked []string
	answer := running
	var fails error
	fetch := func(_ context.Context, urls []string) (types.ID, []Member, error) {
		asked = urls
		return 42, answer, fails
	}
	f := Flags{Name: "c", InitialCluster: "c=http://c:1,b=http://b:1,a=http://a:1", Token: "ignored", PeerURLs: []string{"http://elsewhere:1"}, Resolver: resolver}
	s, err := Join(t.Context(), f, fetch)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(asked, []string{"http://a:1", "http://b:1"}) {
		t.Errorf("asked %v", asked)
	}
	if s.ClusterID != 42 || s.Self.ID != 9 || s.Self.Name != "c" || s.Self.PeerURLs[0] != "http://c:1" {
		t.Errorf("%+v", s)
	}
	var ids []types.ID
	for _, m := range s.Members {
		ids = append(ids, m.ID)
	}
	if !slices.Equal(ids, []types.ID{7, 8, 9}) || len(s.Running) != 3 {
		t.Errorf("members %v, running %v", ids, s.Running)
	}

	answer = running[:2]
	_, err = Join(t.Context(), f, fetch)
	if want := "error validating peerURLs {ClusterID:2a Members:[&{ID:7 RaftAttributes:{PeerURLs:[http://a:1] IsLearner:false} " +
		"Attributes:{Name:a ClientURLs:[http://a:2]}} &{ID:9 RaftAttributes:{PeerURLs:[http://10.0.0.3:1] IsLearner:false} " +
		"Attributes:{Name: ClientURLs:[]}}] RemovedMemberIDs:[]}: member count is unequal"; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	answer = []Member{running[0], running[1], {ID: 5, PeerURLs: []string{"http://10.0.0.4:1"}}}
	if _, err = Join(t.Context(), f, fetch); err == nil || !strings.Contains(err.Error(),
		"PeerURLs: no match found for existing member (5, [http://10.0.0.4:1]), last resolver error (resolved urls:") {
		t.Errorf("%v", err)
	}
	answer = slices.Clone(running)
	answer[0].IsLearner, answer[1].IsLearner = true, true
	if _, err = Join(t.Context(), f, fetch); !errors.Is(err, ErrTooManyLearners) {
		t.Errorf("%v", err)
	}
	f.LearnersMax = 2
	if _, err = Join(t.Context(), f, fetch); err != nil {
		t.Error(err)
	}
	fails = errors.New("could not retrieve cluster information from the given URLs")
	if _, err = Join(t.Context(), f, fetch); err == nil || err.Error() != "cannot fetch cluster info from peer urls: "+fails.Error() {
		t.Errorf("%v", err)
	}
}

// TestCheckNotStarted: a member that has served must not begin anew without its data.
func TestCheckNotStarted(t *testing.T) {
	s, err := Bootstrap(t.Context(), Flags{Name: "a", InitialCluster: "a=http://10.0.0.1:1,b=http://10.0.0.2:1,b=http://10.0.0.0:1", PeerURLs: []string{"http://10.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.PeerURLs(); !slices.Equal(got, []string{"http://10.0.0.0:1", "http://10.0.0.2:1"}) {
		t.Errorf("others at %v", got)
	}
	self, err := json.Marshal(s.Members)
	if err != nil {
		t.Fatal(err)
	}
	running, err := DecodeMembers(self)
	if err != nil || s.CheckNotStarted(running) != nil {
		t.Errorf("added, not started: %v, %v", err, s.CheckNotStarted(running))
	}
	for i := range running {
		running[i].ClientURLs = []string{"http://10.0.0.1:2"}
	}
	if err := s.CheckNotStarted(running); err == nil || err.Error() != "member "+s.Self.ID.String()+" has already been bootstrapped" {
		t.Error(err)
	}
	for _, bad := range []string{"", "[]", "null", "{"} {
		if _, err := DecodeMembers([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
