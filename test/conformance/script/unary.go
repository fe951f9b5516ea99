package script

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/cockroachdb/datadriven"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// call is one unary method.
type call struct {
	method   string
	request  func() proto.Message
	response func() proto.Message
}

// message makes a constructor for the two fields of call.
func message[T any, P interface {
	*T
	proto.Message
}]() func() proto.Message {
	return func() proto.Message { return P(new(T)) }
}

var calls = map[string]call{
	"put":            {pb.KV_Put_FullMethodName, message[pb.PutRequest](), message[pb.PutResponse]()},
	"range":          {pb.KV_Range_FullMethodName, message[pb.RangeRequest](), message[pb.RangeResponse]()},
	"delete":         {pb.KV_DeleteRange_FullMethodName, message[pb.DeleteRangeRequest](), message[pb.DeleteRangeResponse]()},
	"txn":            {pb.KV_Txn_FullMethodName, message[pb.TxnRequest](), message[pb.TxnResponse]()},
	"compact":        {pb.KV_Compact_FullMethodName, message[pb.CompactionRequest](), message[pb.CompactionResponse]()},
	"grant":          {pb.Lease_LeaseGrant_FullMethodName, message[pb.LeaseGrantRequest](), message[pb.LeaseGrantResponse]()},
	"revoke":         {pb.Lease_LeaseRevoke_FullMethodName, message[pb.LeaseRevokeRequest](), message[pb.LeaseRevokeResponse]()},
	"ttl":            {pb.Lease_LeaseTimeToLive_FullMethodName, message[pb.LeaseTimeToLiveRequest](), message[pb.LeaseTimeToLiveResponse]()},
	"leases":         {pb.Lease_LeaseLeases_FullMethodName, message[pb.LeaseLeasesRequest](), message[pb.LeaseLeasesResponse]()},
	"status":         {pb.Maintenance_Status_FullMethodName, message[pb.StatusRequest](), message[pb.StatusResponse]()},
	"alarm":          {pb.Maintenance_Alarm_FullMethodName, message[pb.AlarmRequest](), message[pb.AlarmResponse]()},
	"hash":           {pb.Maintenance_Hash_FullMethodName, message[pb.HashRequest](), message[pb.HashResponse]()},
	"hashkv":         {pb.Maintenance_HashKV_FullMethodName, message[pb.HashKVRequest](), message[pb.HashKVResponse]()},
	"defrag":         {pb.Maintenance_Defragment_FullMethodName, message[pb.DefragmentRequest](), message[pb.DefragmentResponse]()},
	"moveleader":     {pb.Maintenance_MoveLeader_FullMethodName, message[pb.MoveLeaderRequest](), message[pb.MoveLeaderResponse]()},
	"downgrade":      {pb.Maintenance_Downgrade_FullMethodName, message[pb.DowngradeRequest](), message[pb.DowngradeResponse]()},
	"members":        {pb.Cluster_MemberList_FullMethodName, message[pb.MemberListRequest](), message[pb.MemberListResponse]()},
	"member-add":     {pb.Cluster_MemberAdd_FullMethodName, message[pb.MemberAddRequest](), message[pb.MemberAddResponse]()},
	"member-remove":  {pb.Cluster_MemberRemove_FullMethodName, message[pb.MemberRemoveRequest](), message[pb.MemberRemoveResponse]()},
	"member-update":  {pb.Cluster_MemberUpdate_FullMethodName, message[pb.MemberUpdateRequest](), message[pb.MemberUpdateResponse]()},
	"member-promote": {pb.Cluster_MemberPromote_FullMethodName, message[pb.MemberPromoteRequest](), message[pb.MemberPromoteResponse]()},
	"lock":           {v3lockpb.Lock_Lock_FullMethodName, message[v3lockpb.LockRequest](), message[v3lockpb.LockResponse]()},
	"unlock":         {v3lockpb.Lock_Unlock_FullMethodName, message[v3lockpb.UnlockRequest](), message[v3lockpb.UnlockResponse]()},
	"campaign":       {v3electionpb.Election_Campaign_FullMethodName, message[v3electionpb.CampaignRequest](), message[v3electionpb.CampaignResponse]()},
	"proclaim":       {v3electionpb.Election_Proclaim_FullMethodName, message[v3electionpb.ProclaimRequest](), message[v3electionpb.ProclaimResponse]()},
	"resign":         {v3electionpb.Election_Resign_FullMethodName, message[v3electionpb.ResignRequest](), message[v3electionpb.ResignResponse]()},
	"leader":         {v3electionpb.Election_Leader_FullMethodName, message[v3electionpb.LeaderRequest](), message[v3electionpb.LeaderResponse]()},
	"health":         {healthpb.Health_Check_FullMethodName, message[healthpb.HealthCheckRequest](), message[healthpb.HealthCheckResponse]()},
}

func (s *Session) unary(d *datadriven.TestData) (string, error) {
	c, ok := calls[d.Cmd]
	if !ok {
		c, ok = authCalls[d.Cmd]
	}
	if !ok {
		return "", fmt.Errorf("no directive %q; the unary ones are %v", d.Cmd, append(sortedNames(calls), sortedNames(authCalls)...))
	}
	rounds, err := intArg(d, "repeat", 1)
	if err != nil {
		return "", err
	}
	texts := requests(d.Input)
	if len(texts) == 0 {
		texts = []string{""}
	}
	var b strings.Builder
	last := ""
	for round := 1; round <= rounds; round++ {
		for i, text := range texts {
			out, failed, err := s.invoke(d, c, text, round)
			if err != nil {
				return "", err
			}
			out = number(len(texts), i) + out
			last = out
			if failed || !d.HasArg("quiet") {
				b.WriteString(out)
				last = ""
			}
		}
	}
	return b.String() + last, nil
}

// number tells the answers of a directive with several requests apart.
func number(of, i int) string {
	if of == 1 {
		return ""
	}
	return fmt.Sprintf("%d. ", i+1)
}

// invoke makes one call; failed says that out is the server's error.
func (s *Session) invoke(d *datadriven.TestData, c call, text string, round int) (out string, failed bool, err error) {
	req, resp := c.request(), c.response()
	if err := s.parse(text, round, req); err != nil {
		return "", false, err
	}
	ctx, cancel := s.context(d)
	defer cancel()
	if add, ok := req.(*pb.MemberAddRequest); ok && d.HasArg("join") {
		if err := s.prepareJoin(d, add); err != nil {
			return "", false, err
		}
	}
	err = s.conn.Invoke(ctx, c.method, req, resp)
	for err != nil && d.HasArg("patiently") && ctx.Err() == nil {
		time.Sleep(retryInterval)
		err = s.conn.Invoke(ctx, c.method, req, resp)
	}
	if err != nil {
		if d.HasArg("codes") {
			return status.Code(err).String() + "\n", true, nil
		}
		return fault(err), true, nil
	}
	if name, ok := option(d, "as"); ok {
		switch r := resp.(type) {
		case *pb.LeaseGrantResponse:
			s.leases[name] = r.ID
		case *pb.MemberAddResponse:
			s.ids[name] = r.Member.ID
		case *pb.AuthenticateResponse:
			s.tokens[name] = r.Token
		case *pb.MemberListResponse:
			s.ids[name] = r.Header.MemberId
		}
	}
	if r, ok := resp.(*pb.LeaseLeasesResponse); ok && d.HasArg("sort") {
		slices.SortFunc(r.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	}
	least, err := intArg(d, "least", 0)
	if err != nil {
		return "", false, err
	}
	p := s.printer()
	p.least = int64(least)
	return p.message("", resp), false, nil
}

func (s *Session) parse(text string, round int, req proto.Message) error {
	full, err := expand(text, round, s.leases, s.ids)
	if err != nil {
		return err
	}
	if full == "{}" {
		return nil
	}
	if err := prototext.Unmarshal([]byte(full), req); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

// http reads one page of the client port.
func (s *Session) http(d *datadriven.TestData) (string, error) {
	if len(d.CmdArgs) != 1 {
		return "", fmt.Errorf("want one path")
	}
	resp, body, err := get("http://" + s.server.client + d.CmdArgs[0].Key)
	// Who has just become the leader of a cluster decides on its version a moment later.
	for until := time.Now().Add(startMax); err == nil && strings.Contains(body, `"etcdcluster":"not_decided"`) && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
		resp, body, err = get(resp.Request.URL.String())
	}
	if err != nil {
		return "", err
	}
	text := lateInVersion.ReplaceAllString(strings.TrimSpace(body), `"storage":"#"`)
	lines := strings.Split(text, "\n")
	sort.Strings(lines) // etcd runs through the checks of a probe as a map has them
	return fmt.Sprintf("%s %s\n%s\n", resp.Status, resp.Header.Get("Content-Type"), strings.Join(lines, "\n")), nil
}

// get answers with the whole body.
func get(url string) (*http.Response, string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}
