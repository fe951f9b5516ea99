package script

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/datadriven"
)

// jsonStream is the answer to a request that goes on.
type jsonStream struct {
	cancel context.CancelFunc
	body   io.Closer
	lines  *bufio.Reader
}

func (j *jsonStream) close() {
	j.cancel()
	j.body.Close()
}

// maskedJSON are the numbers that two servers may differ in; see masked.
var maskedJSON = regexp.MustCompile(`"(cluster_id|member_id|raft_term|raftTerm|raftIndex|raftAppliedIndex|leader|dbSize|dbSizeInUse|hash|memberID)":("?)\d+"?`)

// lateJSON is what etcd fills some time after its start.
var lateJSON = regexp.MustCompile(`,"(storageVersion)":"[^"]*"`)

// memberJSON is the ID of a member, which is told from that of a lease by what
// follows; leaseJSON one of a lease.
var (
	memberJSON = regexp.MustCompile(`"ID":"\d+","(name|peerURLs)"`)
	leaseJSON  = regexp.MustCompile(`"(ID|lease)":"(-?\d+)"`)
	blobJSON   = regexp.MustCompile(`"(blob|remaining_bytes)":"[^"]*"`)
)

// json posts each line to a path of the JSON API.
func (s *Session) json(d *datadriven.TestData) (string, error) {
	texts := requests(d.Input)
	if len(texts) == 0 {
		texts = []string{""}
	}
	var b strings.Builder
	for i, text := range texts {
		b.WriteString(number(len(texts), i))
		ctx, cancel := context.WithTimeout(context.Background(), callMax)
		resp, err := s.post(ctx, d, text)
		if err != nil {
			cancel()
			return "", err
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		cancel()
		if err != nil {
			return "", err
		}
		if name, ok := option(d, "as"); ok {
			if err := s.rememberLease(name, body); err != nil {
				return "", err
			}
		}
		b.WriteString(s.jsonHead(d, resp) + s.maskJSON(body))
	}
	return b.String(), nil
}

// jsonOpen posts the input to a path and leaves the answer open.
func (s *Session) jsonOpen(d *datadriven.TestData) (string, error) {
	if len(d.CmdArgs) < 2 {
		return "", errors.New("want a name and a path")
	}
	name := d.CmdArgs[0].Key
	d.CmdArgs = d.CmdArgs[1:]
	ctx, cancel := context.WithCancel(context.Background())
	resp, err := s.post(ctx, d, strings.Join(requests(d.Input), "\n"))
	if err != nil {
		cancel()
		return "", err
	}
	s.streams[name] = &jsonStream{cancel, resp.Body, bufio.NewReader(resp.Body)}
	return s.jsonHead(d, resp), nil
}

// jsonRecv prints the next n lines of an answer, or its end.
func (s *Session) jsonRecv(d *datadriven.TestData) (string, error) {
	if len(d.CmdArgs) == 0 || s.streams[d.CmdArgs[0].Key] == nil {
		return "", errors.New("want the name of an open answer")
	}
	n, err := intArg(d, "n", 1)
	if err != nil {
		return "", err
	}
	j := s.streams[d.CmdArgs[0].Key]
	timer := time.AfterFunc(callMax, j.cancel)
	defer timer.Stop()
	var b strings.Builder
	for range n {
		line, err := j.lines.ReadBytes('\n')
		if err != nil {
			return b.String() + "end\n", nil
		}
		b.WriteString(s.maskJSON(line))
	}
	return b.String(), nil
}

// post sends text to the path that is d's first argument.
func (s *Session) post(ctx context.Context, d *datadriven.TestData, text string) (*http.Response, error) {
	if len(d.CmdArgs) == 0 {
		return nil, errors.New("want a path")
	}
	method := http.MethodPost
	if m, ok := option(d, "method"); ok {
		method = m
	}
	full, err := expand(text, 1, s.leases, s.ids)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.server.client+d.CmdArgs[0].Key, strings.NewReader(full))
	if err != nil {
		return nil, err
	}
	for _, a := range d.CmdArgs[1:] {
		switch {
		case a.Key == "header" && len(a.Vals) == 2:
			req.Header.Set(a.Vals[0], a.Vals[1])
		case a.Key == "host" && len(a.Vals) == 1:
			req.Host = a.Vals[0]
		case a.Key == "authorization" && len(a.Vals) == 1:
			req.Header.Set("Authorization", s.token(a.Vals[0]))
		case a.Key == "bearer" && len(a.Vals) == 1:
			req.Header.Set("Authorization", "Bearer "+s.token(a.Vals[0]))
		}
	}
	return http.DefaultClient.Do(req)
}

// jsonHead is the status, the kind of the content, and what d asks of the header.
func (s *Session) jsonHead(d *datadriven.TestData, resp *http.Response) string {
	head := fmt.Sprintf("%s %s\n", resp.Status, resp.Header.Get("Content-Type"))
	for _, a := range d.CmdArgs {
		if a.Key == "show" {
			for _, name := range a.Vals {
				head += fmt.Sprintf("%s: %q\n", name, resp.Header.Values(name))
			}
		}
	}
	return head
}

// maskJSON prints JSON without the blanks that protojson varies on purpose, and
// other text as it is.
func (s *Session) maskJSON(body []byte) string {
	body = bytes.ReplaceAll(body, []byte("\u00a0"), []byte(" "))
	var b strings.Builder
	for line := range bytes.Lines(bytes.TrimSpace(body)) {
		var compact bytes.Buffer
		if json.Compact(&compact, line) != nil {
			compact.Reset()
			compact.Write(bytes.TrimRight(line, "\n"))
		}
		b.WriteString(s.maskLine(compact.String()) + "\n")
	}
	return b.String()
}

func (s *Session) maskLine(line string) string {
	line = lateJSON.ReplaceAllString(line, "")
	line = tokenJSON.ReplaceAllStringFunc(line, func(m string) string { return `"token":"` + tokenKind(tokenJSON.FindStringSubmatch(m)[1]) + `"` })
	line = maskedJSON.ReplaceAllString(line, `"$1":$2#$2`)
	line = memberJSON.ReplaceAllString(line, `"ID":"#","$1"`)
	line = blobJSON.ReplaceAllString(line, `"$1":"#"`)
	line = leaseJSON.ReplaceAllStringFunc(line, func(m string) string {
		f := leaseJSON.FindStringSubmatch(m)
		for name, id := range s.leases {
			if strconv.FormatInt(id, 10) == f[2] {
				return fmt.Sprintf("%q:\"$%s\"", f[1], name)
			}
		}
		return m
	})
	line = port.ReplaceAllString(line, "127.0.0.1:#")
	if len(line) > jsonLineMax {
		line = fmt.Sprintf("%s...(%d bytes, crc32 %08x)", line[:jsonLineMax], len(line), crc32.ChecksumIEEE([]byte(line)))
	}
	return line
}

func (s *Session) rememberLease(name string, body []byte) error {
	var granted struct{ ID string }
	if err := json.Unmarshal(body, &granted); err != nil {
		return fmt.Errorf("remember the lease of %s: %w", body, err)
	}
	id, err := strconv.ParseInt(granted.ID, 10, 64)
	s.leases[name] = id
	return err
}
