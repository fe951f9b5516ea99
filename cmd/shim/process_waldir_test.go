package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// move does what an operator does with mv.
func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := os.Rename(filepath.Join(from, n.Name()), filepath.Join(to, n.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// refused starts shim and wants it to end with an error that has text in it.
func refused(t *testing.T, dir, text string, args ...string) {
	t.Helper()
	p := launch(t, dir, args...)
	if code := p.wait(); code != exitError || !strings.Contains(p.log(), text) {
		t.Errorf("%q: exit code %d, want an error with %q:\n%s", args, code, text, p.log())
	}
}

// TestProcessWalDir moves the log of a member to a directory of its own and back.
func TestProcessWalDir(t *testing.T) {
	dir, own := t.TempDir(), filepath.Join(t.TempDir(), "wal")
	inner := filepath.Join(dir, "member", "wal")
	step := 0
	use := func(args ...string) {
		t.Helper()
		p := start(t, dir, args...)
		cli := p.dial()
		for i := range step {
			if got, err := cli.Get(context.Background(), fmt.Sprint("k", i)); err != nil || len(got.Kvs) != 1 {
				t.Fatalf("step %d: key %d is lost (%v)", step, i, err)
			}
		}
		if _, err := cli.Put(context.Background(), fmt.Sprint("k", step), "v"); err != nil {
			t.Fatal(err)
		}
		step++
		if code := p.stop(syscall.SIGKILL); code != -1 { // what was written is in the log alone
			t.Fatalf("exit code %d", code)
		}
	}
	use()
	refused(t, dir, "the log is in "+inner+"; to have it in "+own, "--wal-dir="+own)
	if err := os.RemoveAll(own); err != nil {
		t.Fatal(err)
	}
	move(t, inner, own)
	refused(t, dir, "if it has a directory of its own, name that with --wal-dir")
	if err := os.RemoveAll(inner); err != nil {
		t.Fatal(err)
	}
	use("--wal-dir=" + own)
	if names, err := os.ReadDir(inner); err == nil {
		t.Errorf("%s has come to be, with %v", inner, names)
	}
	if out, err := exec.Command(binary, "check", "--wal-dir="+own, dir).CombinedOutput(); err != nil || !strings.HasSuffix(string(out), ": ok\n") {
		t.Errorf("check: %s%v", out, err)
	}
	first := start(t, dir, "--wal-dir="+own)
	refused(t, t.TempDir(), "is in use by another member", "--wal-dir="+own)
	first.stop(syscall.SIGTERM)
	move(t, own, inner)
	use()
	move(t, inner, own)
	if err := os.WriteFile(filepath.Join(inner, "0000000000000009.wal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, "there are logs in "+inner+" and in "+own, "--wal-dir="+own)
}

// TestProcessRestoreWalDir restores a snapshot with the log elsewhere.
func TestProcessRestoreWalDir(t *testing.T) {
	dir := t.TempDir()
	p := start(t, filepath.Join(dir, "old"))
	if _, err := p.dial().Put(context.Background(), "a", "1"); err != nil {
		t.Fatal(err)
	}
	snapshot, data, wal := filepath.Join(dir, "s"), filepath.Join(dir, "new"), filepath.Join(dir, "disk", "wal")
	shim := func(args ...string) (string, error) {
		out, err := exec.Command(binary, args...).CombinedOutput()
		return string(out), err
	}
	if out, err := shim("snapshot", "save", snapshot, "--endpoints="+p.client); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	p.stop(syscall.SIGTERM)
	restore := []string{"snapshot", "restore", snapshot, "--data-dir=" + data, "--wal-dir=" + wal, "--name=test",
		"--initial-cluster=test=http://localhost:2380"}
	if out, err := shim(restore...); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	if out, err := shim("snapshot", "restore", snapshot, "--data-dir="+data+"2", "--wal-dir="+wal); err == nil || !strings.Contains(out, "wal dir "+wal+" is not empty") {
		t.Errorf("restored into a log that is there: %s%v", out, err)
	}
	p = start(t, data, "--wal-dir="+wal)
	if got, err := p.dial().Get(context.Background(), "a"); err != nil || len(got.Kvs) != 1 || got.Header.Revision <= bumpRevisionDefault {
		t.Errorf("restored: %v, %v", got, err)
	}
	p.stop(syscall.SIGTERM)
	if _, err := os.Stat(filepath.Join(data, "member", "wal")); err == nil {
		t.Error("there is a log in the data directory")
	}
}
