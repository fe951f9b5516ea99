package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/kubeshim/shim/pkg/raftstore"
)

// TestLogLayout: lines look as etcd's do, down to the order of the fields.
func TestLogLayout(t *testing.T) {
	var stderr bytes.Buffer
	log, err := openLog(DefaultConfig(), nil, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	log.With("member", "m").WithGroup("g").Warn("quote \" & <tag>", "n", 1, "d", 1500*time.Millisecond, "err", errors.New("bad"),
		"list", []string{"a", "b"}, "on", true, "sub", slog.GroupValue(slog.Int("x", 2)), "nothing", nil)
	want := `^\{"level":"warn","ts":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d{4})","caller":"shim/logging_test\.go:\d+","msg":"quote \\" & <tag>",` +
		`"member":"m","g\.n":1,"g\.d":"1\.5s","g\.err":"bad","g\.list":\["a","b"\],"g\.on":true,"g\.sub\.x":2,"g\.nothing":null\}` + "\n$"
	if !regexp.MustCompile(want).MatchString(stderr.String()) {
		t.Errorf("%s\nis not %s", stderr.String(), want)
	}
	var m map[string]any
	if err := json.Unmarshal(stderr.Bytes(), &m); err != nil {
		t.Error(err)
	}
}

func TestLogConsole(t *testing.T) {
	var stderr bytes.Buffer
	c := DefaultConfig()
	c.LogFormat = logFormatConsole
	log, err := openLog(c, nil, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	log.Error("message", "k", "v")
	if want := `^\S+\terror\tshim/logging_test\.go:\d+\tmessage\t\{"k":"v"\}` + "\n$"; !regexp.MustCompile(want).MatchString(stderr.String()) {
		t.Errorf("%q is not %s", stderr.String(), want)
	}
}

func TestLogLevels(t *testing.T) {
	for level, want := range map[string]string{"debug": "DIWE", "info": "IWE", "": "IWE", "warn": "WE", "error": "E", "fatal": "", "panic": ""} {
		var stderr bytes.Buffer
		c := DefaultConfig()
		c.LogLevel = level
		log, err := openLog(c, nil, &stderr)
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("D")
		log.Info("I")
		log.Warn("W")
		log.Error("E")
		var got strings.Builder
		for line := range strings.Lines(stderr.String()) {
			var m struct{ Msg string }
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			got.WriteString(m.Msg)
		}
		if got.String() != want {
			t.Errorf("%q: %s, want %s", level, got.String(), want)
		}
	}
}

func TestLogOutputs(t *testing.T) {
	var stdout, stderr bytes.Buffer
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.LogOutputs = []string{file, "stderr", "stdout"}
	log, err := openLog(c, &stdout, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hello")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if stdout.String() == "" || stdout.String() != stderr.String() || string(data) != "before\n"+stdout.String() {
		t.Errorf("stdout %q, stderr %q, file %q", stdout.String(), stderr.String(), data)
	}
	c.LogOutputs = []string{filepath.Join(file, "not-a-directory")}
	if _, err := openLog(c, &stdout, &stderr); err == nil {
		t.Error("a file that cannot be opened is no error")
	}
}

// TestLogRotation: the file is rotated at its size, and what is kept is bounded.
func TestLogRotation(t *testing.T) {
	dir := t.TempDir()
	c := DefaultConfig()
	c.LogOutputs, c.EnableLogRotation = []string{filepath.Join(dir, "made", "log"), "stderr"}, true
	c.LogRotationConfigJSON = `{"maxsize": 1, "maxbackups": 5}`
	var stderr bytes.Buffer
	log, err := openLog(c, nil, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 1000)
	for i := range 2500 {
		log.Info(line[:500+i%500], "n", i)
	}
	files, err := os.ReadDir(filepath.Join(dir, "made"))
	if err != nil {
		t.Fatal(err)
	}
	var all int64
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 1<<20 {
			t.Errorf("%s has %d bytes", f.Name(), info.Size())
		}
		all += info.Size()
	}
	if len(files) != 3 || all != int64(stderr.Len()) {
		t.Errorf("%d files with %d bytes, where %d were written", len(files), all, stderr.Len())
	}
}

// TestLogSampling: of equal lines, etcd's logger writes 100 in a second and each
// hundredth of the others.
func TestLogSampling(t *testing.T) {
	var stderr bytes.Buffer
	log, err := openLog(DefaultConfig(), nil, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1000, 0)
	write := func(level slog.Level, msg string, n int) {
		for range n {
			if err := log.Handler().Handle(bg, slog.NewRecord(at, level, msg, 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(slog.LevelWarn, "same", 1000)
	write(slog.LevelWarn, "other", 1)
	at = at.Add(time.Second)
	write(slog.LevelWarn, "same", 1)
	write(levelFatal, "fatal", 300)
	for msg, want := range map[string]int{"same": 110, "other": 1, "fatal": 300} {
		if got := strings.Count(stderr.String(), `"msg":"`+msg+`"`); got != want {
			t.Errorf("%s: %d lines, want %d", msg, got, want)
		}
	}
}

// TestLogJournal: lines go to the journal with the priority of their level, in
// both formats, and to stderr where there is none.
func TestLogJournal(t *testing.T) {
	for _, format := range []string{logFormatJSON, logFormatConsole} {
		var sent []string
		var stderr bytes.Buffer
		down := errors.New("no journal")
		var fails error
		out := journalWriter{fallback: &stderr, send: func(m string, p journal.Priority, vars map[string]string) error {
			sent = append(sent, fmt.Sprint(int(p), vars["PACKAGE"], strings.Contains(m, "hello")))
			return fails
		}}
		h := &zapHandler{out: &logOutput{w: out}, sampler: new(logSampler), console: format == logFormatConsole}
		slog.New(h).Warn("hello")
		fails = down
		slog.New(h).Error("hello again")
		if want := []string{"4shimtrue", "3shimtrue"}; !slices.Equal(sent, want) {
			t.Errorf("%s: sent %q, want %q", format, sent, want)
		}
		if !strings.Contains(stderr.String(), "hello again") || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%s: stderr has %q", format, stderr.String())
		}
	}
}

// TestWarningsAreBounded: a kind of warning has so many lines in a second, and the
// first one after that says how many there were besides.
func TestWarningsAreBounded(t *testing.T) {
	var stderr bytes.Buffer
	log, err := openLog(DefaultConfig(), nil, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	w := newWarnings(log)
	at := time.Unix(1000, 0)
	w.now = func() time.Time { return at }
	for range 1000 {
		w.event(DefaultConfig(), raftstore.SlowFsync{Took: 2 * time.Second, Expected: time.Second})
	}
	w.event(DefaultConfig(), raftstore.SlowReadIndex{Request: 7, Retry: 500 * time.Millisecond})
	at = at.Add(time.Second)
	w.event(DefaultConfig(), raftstore.SlowFsync{Took: 2 * time.Second, Expected: time.Second})
	got := stderr.String()
	if n := strings.Count(got, `"msg":"slow fdatasync","took":"2s","expected-duration":"1s"`); n != warningsMax+1 {
		t.Errorf("%d lines", n)
	}
	for _, want := range []string{
		fmt.Sprintf(`"slow fdatasync","took":"2s","expected-duration":"1s","suppressed":%d}`, 1000-warningsMax),
		`"msg":"waiting for ReadIndex response took too long, retrying","sent-request-id":7,"retry-timeout":"500ms"}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %s in %s", want, got)
		}
	}
}
