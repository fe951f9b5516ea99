package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
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
