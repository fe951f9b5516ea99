package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestAuthFlags: the three flags, by each way, and what is made of values that are none.
func TestAuthFlags(t *testing.T) {
	for way, parsed := range map[string]func() (*Config, command, error){
		"flags": func() (*Config, command, error) {
			return parse([]string{"--auth-token=jwt,sign-method=HS256,priv-key=k", "--auth-token-ttl=7", "--bcrypt-cost=5"}, nil)
		},
		"environment": func() (*Config, command, error) {
			return parse(nil, []string{"ETCD_AUTH_TOKEN=jwt,sign-method=HS256,priv-key=k", "ETCD_AUTH_TOKEN_TTL=7", "ETCD_BCRYPT_COST=5"})
		},
		"file": func() (*Config, command, error) {
			file := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(file, []byte("auth-token: jwt,sign-method=HS256,priv-key=k\nauth-token-ttl: 7\nbcrypt-cost: 5\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return parse([]string{"--config-file=" + file}, nil)
		},
	} {
		c, _, err := parsed()
		if err != nil || c.AuthToken != "jwt,sign-method=HS256,priv-key=k" || c.AuthTokenTTL != 7 || c.BcryptCost != 5 {
			t.Errorf("%s: %q, %d, %d, %v", way, c.AuthToken, c.AuthTokenTTL, c.BcryptCost, err)
		}
	}
	for _, cost := range []string{"3", "32", "0"} {
		c, _, err := parse([]string{"--bcrypt-cost=" + cost}, nil)
		if err != nil || c.BcryptCost != 10 || !strings.Contains(strings.Join(c.warnings, "\n"), "--bcrypt-cost "+cost+" is not between 4 and 31; using 10") {
			t.Errorf("cost %s: %d, %v, %q", cost, c.BcryptCost, err, c.warnings)
		}
	}
}

// TestProcessAuthTokenErrors: bad options of tokens end the process with etcd's words.
func TestProcessAuthTokenErrors(t *testing.T) {
	for kind, want := range map[string]string{
		"nonsense":                         "auth: invalid auth options",
		"jwt,sign-method=HS256":            "auth: missing key data",
		"jwt,sign-method=RS256,pub-key=no": "auth: invalid auth options",
	} {
		p := launch(t, t.TempDir(), "--auth-token="+kind)
		<-p.ended
		if p.cmd.ProcessState.ExitCode() != exitError || !strings.Contains(p.log(), want) {
			t.Errorf("%s: exit code %d", kind, p.cmd.ProcessState.ExitCode())
			p.t.Logf("want %q in\n%s", want, p.log())
		}
	}
}

// TestProcessSnapshotSaveUser: with auth on, a snapshot is root's to take; user and password are given in etcdctl's ways.
func TestProcessSnapshotSaveUser(t *testing.T) {
	p := start(t, t.TempDir(), "--bcrypt-cost=4")
	file := filepath.Join(t.TempDir(), "snapshot")
	save := func(want int, environ []string, flags ...string) string {
		t.Helper()
		return snapshot(t, want, environ, append([]string{"save", file, "--endpoints=" + p.client}, flags...)...)
	}
	save(exitOK, nil, "--user=nobody:x") // auth is off
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{p.client}, DialTimeout: startTimeout})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	for _, user := range []string{"root", "alice"} {
		if _, err := c.UserAdd(ctx, user, "a:secret"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.UserGrantRole(ctx, "root", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AuthEnable(ctx); err != nil {
		t.Fatal(err)
	}
	for want, flags := range map[string][]string{
		"user name is empty":      nil,
		"permission denied":       {"--user=alice:a:secret"},
		"authentication failed":   {"--user=root:wrong"},
		"is not given":            {"--user=root"},
		"invalid auth token":      {"--auth-jwt-token=nonsense"},
		"invalid user ID or pass": {"--user=root:a:secret", "--password=a:secret"},
	} {
		if out := save(exitError, nil, flags...); !strings.Contains(out, want) {
			t.Errorf("%q: %s", flags, out)
		}
	}
	save(exitOK, nil, "--user=root:a:secret")
	save(exitOK, nil, "--user=root", "--password=a:secret")
	save(exitOK, []string{"ETCDCTL_USER=root:a:secret"})
	if out := snapshot(t, exitOK, nil, "status", file); out == "" {
		t.Error("no status")
	}
	if _, err := c.Get(ctx, "k"); !errors.Is(err, rpctypes.ErrUserEmpty) {
		t.Errorf("read of nobody: %v", err)
	}
}
