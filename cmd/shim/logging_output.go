package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
	"go.etcd.io/etcd/client/pkg/v3/systemd"
	"gopkg.in/natefinch/lumberjack.v2"
)

// The values of --log-outputs that are no file.
const (
	logOutputDefault = "default"
	logOutputStderr  = "stderr"
	logOutputStdout  = "stdout"
	logOutputJournal = "systemd/journal"
	logOutputNull    = "/dev/null" // beside others, it takes their place
)

const logRotationDefault = `{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}`

var errRotationOutput = errors.New("--log-outputs requires a single file path when --log-rotate-config-json is defined")

// logRotationConfig is what --log-rotation-config-json says. The name is part of
// the message for a value of a wrong type, which is etcd's.
type logRotationConfig struct {
	*lumberjack.Logger
}

// validateOutputs reports outputs that do not go together, in etcd's words.
func validateOutputs(c *Config) error {
	if len(c.LogOutputs) > 1 && slices.Contains(c.LogOutputs, logOutputDefault) {
		return fmt.Errorf("multi logoutput for %q is not supported yet", logOutputDefault)
	}
	if c.EnableLogRotation {
		if _, err := logRotation(c); err != nil {
			return err
		}
	}
	if len(c.LogOutputs) > 1 && slices.Contains(c.LogOutputs, logOutputJournal) {
		return fmt.Errorf("running with systemd/journal but other '--log-outputs' values (%q) are configured with 'default'; override 'default' value with something else", c.LogOutputs)
	}
	return nil
}

// logRotation is the rotation asked for, without its file.
func logRotation(c *Config) (*lumberjack.Logger, error) {
	files := 0
	for _, name := range c.LogOutputs {
		switch name {
		case logOutputDefault, logOutputStderr, logOutputStdout:
		default:
			files++
		}
	}
	if files > 1 || files == 0 && len(c.LogOutputs) == 1 {
		return nil, errRotationOutput
	}
	var r logRotationConfig
	if err := json.Unmarshal([]byte(c.LogRotationConfigJSON), &r); err != nil {
		var wrongType *json.UnmarshalTypeError
		var syntax *json.SyntaxError
		switch {
		case errors.As(err, &syntax):
			return nil, fmt.Errorf("improperly formatted log rotation config: %w", err)
		case errors.As(err, &wrongType):
			return nil, fmt.Errorf("invalid log rotation config: %w", err)
		}
		return nil, fmt.Errorf("fail to unmarshal log rotation config: %w", err)
	}
	if r.Logger == nil { // "{}": lumberjack's own defaults
		r.Logger = &lumberjack.Logger{}
	}
	return r.Logger, nil
}

// openOutputs opens every output once, and answers a writer to all of them.
func openOutputs(c *Config, stdout, stderr io.Writer) (io.Writer, error) {
	names := slices.Compact(slices.Sorted(slices.Values(c.LogOutputs)))
	if slices.Contains(names, logOutputNull) {
		names = []string{logOutputNull}
	}
	var outs []io.Writer
	var errs []error
	for _, name := range names {
		w, err := openOutput(c, name, stdout, stderr)
		outs, errs = append(outs, w), append(errs, err)
	}
	return io.MultiWriter(outs...), errors.Join(errs...)
}

func openOutput(c *Config, name string, stdout, stderr io.Writer) (io.Writer, error) {
	switch name {
	case logOutputDefault, logOutputStderr:
		return stderr, nil
	case logOutputStdout:
		return stdout, nil
	case logOutputJournal:
		if err := systemd.DialJournal(); err != nil {
			return nil, fmt.Errorf("can't find journal (%w)", err)
		}
		return journalWriter{send: journal.Send, fallback: stderr}, nil
	}
	if c.EnableLogRotation {
		r, err := logRotation(c)
		if err == nil {
			r.Filename = name // made with the first line
		}
		return r, err
	}
	path, err := filePath(name)
	if err != nil {
		return nil, fmt.Errorf("open sink %q: %w", name, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("open sink %q: %w", name, err)
	}
	return f, nil
}

// filePath is a path, or that of a file: URL.
func filePath(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	u, err := url.Parse(name)
	switch {
	case err != nil:
		return "", fmt.Errorf("can't parse %q as a URL: %w", name, err)
	case u.Scheme == "":
		return u.Path, nil
	case u.Scheme != "file":
		return "", fmt.Errorf("no sink found for scheme %q", u.Scheme)
	case u.Hostname() != "" && u.Hostname() != "localhost":
		return "", fmt.Errorf("file URLs must leave host empty or use localhost: got %v", u)
	}
	return u.Path, nil
}

// journalWriter sends lines to systemd's journal, with the priority of their
// level, or to fallback when it does not take one.
type journalWriter struct {
	send     func(message string, p journal.Priority, vars map[string]string) error
	fallback io.Writer
}

// Write takes one line.
func (w journalWriter) Write(line []byte) (int, error) {
	level, caller := lineHead(line)
	priority := map[string]journal.Priority{"debug": journal.PriDebug, "info": journal.PriInfo, "warn": journal.PriWarning,
		"error": journal.PriErr, "fatal": journal.PriCrit}[level]
	if err := w.send(string(line), priority, map[string]string{
		"PACKAGE": filepath.Dir(caller), "SYSLOG_IDENTIFIER": filepath.Base(os.Args[0]),
	}); err != nil {
		return w.fallback.Write(line)
	}
	return len(line), nil
}

// lineHead is the level and the caller of a line, in either format.
func lineHead(line []byte) (level, caller string) {
	if bytes.HasPrefix(line, []byte("{")) {
		var head struct{ Level, Caller string }
		_ = json.Unmarshal(line, &head) // we have written it
		return head.Level, head.Caller
	}
	fields := strings.SplitN(string(line), "\t", 4)
	return fields[min(1, len(fields)-1)], fields[min(2, len(fields)-1)]
}
