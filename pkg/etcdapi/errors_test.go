package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// sentinelsWithoutStatus never reach a client: they end the process at start, or
// answer a proposal of the store itself.
var sentinelsWithoutStatus = map[string]bool{
	"mvcc.ErrStaleExpiry":       true,
	"raftstore.ErrInUse":        true,
	"raftstore.ErrRemoved":      true,
	"raftstore.ErrNewerFormat":  true,
	"raftstore.ErrInconsistent": true,
	"raftstore.ErrEtcdDataDir":  true,
	"raftstore.ErrMisplacedLog": true,
}

// exportedErrors lists the Err... variables a file declares.
func exportedErrors(t *testing.T, pkg, file string) []string {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, s := range g.Specs {
			for _, n := range s.(*ast.ValueSpec).Names {
				if strings.HasPrefix(n.Name, "Err") {
					names = append(names, pkg+"."+n.Name)
				}
			}
		}
	}
	return names
}

// tableNames lists the sentinels on the left side of errorTable.
func tableNames(t *testing.T) map[string]bool {
	f, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if lit, ok := n.(*ast.CompositeLit); ok && len(lit.Elts) == 2 {
			if sel, ok := lit.Elts[0].(*ast.SelectorExpr); ok {
				names[fmt.Sprint(sel.X, ".", sel.Sel)] = true
			}
		}
		return true
	})
	return names
}

// TestErrorTableIsComplete checks that every sentinel of the store has a status.
func TestErrorTableIsComplete(t *testing.T) {
	inTable := tableNames(t)
	all := append(exportedErrors(t, "mvcc", "../raftstore/mvcc/errors.go"),
		exportedErrors(t, "raftstore", "../raftstore/errors.go")...)
	all = append(all, exportedErrors(t, "membership", "../raftstore/membership/cluster.go")...)
	all = append(all, exportedErrors(t, "membership", "../raftstore/membership/reconfigure.go")...)
	if len(all) < 30 {
		t.Fatalf("found only %d sentinels", len(all))
	}
	for _, name := range all {
		if inTable[name] == sentinelsWithoutStatus[name] {
			t.Errorf("%s: in the table: %v, without status: %v", name, inTable[name], sentinelsWithoutStatus[name])
		}
	}
}

// TestErrorTexts checks codes and texts as clients see them.
func TestErrorTexts(t *testing.T) {
	for _, e := range errorTable {
		got := toGRPC(fmt.Errorf("apply: %w", e.sentinel))
		if got != e.grpc {
			t.Errorf("%v: got %v, want %v", e.sentinel, got, e.grpc)
		}
		if got == rpctypes.ErrMemberNotEnoughStarted || got == rpctypes.ErrTooManyRequests {
			if code := codeOf(got); code != codes.Unknown {
				t.Errorf("%v: %v; etcd's table has the client's value here, whose code is lost", got, code)
			}
			continue // clients go by the text
		}
		st, ok := status.FromError(got)
		if !ok || st.Code() == codes.OK || st.Code() == codes.Unknown {
			t.Errorf("%v: %v is no status", e.sentinel, got)
		}
		if e.grpc == errUnsupportedCommand || e.grpc == rpctypes.ErrGRPCPermissionNotGiven {
			continue // etcd's clients have no value for the second one
		}
		// clientv3 maps a status back by its text.
		var known rpctypes.EtcdError
		if !errors.As(rpctypes.Error(got), &known) || known.Code() != st.Code() {
			t.Errorf("%v: clients do not know %q", e.sentinel, st.Message())
		}
	}
}

func TestContextErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		read codes.Code
		prop error
	}{
		{context.Canceled, codes.Canceled, rpctypes.ErrGRPCCanceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded, rpctypes.ErrGRPCTimeout},
	} {
		wrapped := fmt.Errorf("wait: %w", c.err)
		if got := status.FromContextError(toGRPC(wrapped)); got.Code() != c.read || got.Message() != c.err.Error() {
			t.Errorf("read: %v became %v", c.err, got)
		}
		if got := proposeError(wrapped); got != c.prop {
			t.Errorf("proposal: %v became %v", c.err, got)
		}
	}
	if got := status.Code(toGRPC(errors.New("disk on fire"))); got != codes.Unknown {
		t.Errorf("unknown error became %v", got)
	}
	if toGRPC(nil) != nil {
		t.Error("nil became an error")
	}
}
