package script

import (
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func TestRequests(t *testing.T) {
	have := requests("a\n b\n\nc\n\td\n")
	if want := []string{"a\n b", "c\n\td"}; !slices.Equal(have, want) {
		t.Errorf("requests: %q, want %q", have, want)
	}
}

func TestExpand(t *testing.T) {
	leases := map[string]int64{"L": 42}
	for in, want := range map[string]string{
		`ID:$L`:              `ID:42`,
		`key:"k${i:3}-${i}"`: `key:"k007-7"`,
		`"${xy*3}" ${i}`:     `"xyxyxy" 7`,
		`${c{k:"a"} *2}`:     `c{k:"a"} c{k:"a"} `,
	} {
		if have, err := expand(in, 7, leases, nil); err != nil || have != want {
			t.Errorf("expand %s: %s, %v, want %s", in, have, err, want)
		}
	}
	if have, err := expand("$M", 1, leases, nil); err == nil {
		t.Errorf("an unknown lease became %q", have)
	}
}

// What is masked must still show that it is there, and nothing else is masked.
func TestPrint(t *testing.T) {
	full := &pb.ResponseHeader{ClusterId: 1, MemberId: 2, RaftTerm: 3, Revision: 4}
	p := printer{leases: map[string]int64{"L": 42}}
	for _, c := range []struct {
		want string
		have string
	}{
		{"header{4}\n", p.message("", &pb.PutResponse{Header: full})},
		{"no-header\n", p.message("", &pb.PutResponse{})},
		{"header{4 no raft_term}\n", p.message("", &pb.PutResponse{Header: &pb.ResponseHeader{ClusterId: 1, MemberId: 2, Revision: 4}})},
		{"header{0 no ids}\n", p.message("", &pb.PutResponse{Header: &pb.ResponseHeader{}})},
		{"header{4} ID:$L TTL:# grantedTTL:9 keys:\"a\" keys:\"b\"\n",
			p.message("", &pb.LeaseTimeToLiveResponse{Header: full, ID: 42, TTL: 8, GrantedTTL: 9, Keys: [][]byte{[]byte("b"), []byte("a")}})},
		{"header{4} ID:43 TTL:-1\n", p.message("", &pb.LeaseTimeToLiveResponse{Header: full, ID: 43, TTL: -1})},
		{"header{4} ID:43 TTL:10 grantedTTL:9\n", p.message("", &pb.LeaseTimeToLiveResponse{Header: full, ID: 43, TTL: 10, GrantedTTL: 9})},
		{"header{4} dbSize:#\n", p.message("", &pb.StatusResponse{Header: full, DbSize: 1})},
		{"header{4} count:1\n  kvs key:\"a\" mod_revision:3 value:\"\\x00\" lease:41\n",
			p.message("", &pb.RangeResponse{Header: full, Count: 1, Kvs: []*mvccpb.KeyValue{{Key: []byte("a"), ModRevision: 3, Value: []byte{0}, Lease: 41}}})},
	} {
		if c.have != c.want {
			t.Errorf("have %q, want %q", c.have, c.want)
		}
	}
}
