package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The values of --log-format.
const (
	logFormatJSON    = "json"
	logFormatConsole = "console"
)

// timeLayout is that of etcd's logger.
const timeLayout = "2006-01-02T15:04:05.000000Z0700"

// levelFatal is above slog's levels: the process ends after it.
const levelFatal = slog.LevelError + 8

// validateLogging reports settings that etcd refuses.
func validateLogging(c *Config) error {
	var errs []error
	switch c.Logger {
	case "zap":
	case "capnslog":
		errs = append(errs, errors.New("--logger=capnslog is removed in v3.5"))
	default:
		errs = append(errs, fmt.Errorf("unknown logger option %q", c.Logger))
	}
	if _, err := parseLevel(c.LogLevel); err != nil {
		errs = append(errs, err)
	}
	if c.LogFormat != logFormatJSON && c.LogFormat != logFormatConsole && c.LogFormat != "" {
		errs = append(errs, fmt.Errorf("unknown log format: %s, supported values json, console", c.LogFormat))
	}
	errs = append(errs, validateOutputs(c))
	return errors.Join(errs...)
}

func parseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, nil
	case "info", "":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "dpanic", "panic", "fatal":
		return levelFatal, nil
	}
	return slog.LevelInfo, fmt.Errorf("unrecognized level: %q", s)
}

// openLog is the logger that the configuration asks for. With settings that do
// not work it is the default one, to have something to say so with.
func openLog(c *Config, stdout, stderr io.Writer) (*slog.Logger, error) {
	level, err := parseLevel(c.LogLevel)
	h := &zapHandler{out: &logOutput{w: stderr}, sampler: new(logSampler), level: level, console: c.LogFormat == logFormatConsole}
	out, oerr := openOutputs(c, stdout, stderr)
	if err = errors.Join(err, oerr); err == nil {
		h.out.w = out
	}
	return slog.New(h), err
}

// logOutput serializes whole lines.
type logOutput struct {
	mu sync.Mutex
	w  io.Writer
}

// zapHandler writes lines in the layout of etcd's logger: level, ts, caller,
// msg, then the attributes. Attributes of a group carry its name as a prefix.
type zapHandler struct {
	out     *logOutput
	sampler *logSampler
	level   slog.Level
	console bool
	attrs   []slog.Attr
	prefix  string
}

// Enabled implements slog.Handler.
func (h *zapHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

// WithAttrs implements slog.Handler.
func (h *zapHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = slices.Clip(h.attrs)
	for _, a := range attrs {
		a.Key = h.prefix + a.Key
		c.attrs = append(c.attrs, a)
	}
	return &c
}

// WithGroup implements slog.Handler.
func (h *zapHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.prefix = h.prefix + name + "."
	return &c
}

// Handle implements slog.Handler.
func (h *zapHandler) Handle(_ context.Context, r slog.Record) error {
	if !h.sampler.admit(r) {
		return nil
	}
	attrs := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		a.Key = h.prefix + a.Key
		attrs = append(attrs, a)
		return true
	})
	ts := r.Time.Format(timeLayout)
	var b []byte
	if h.console {
		b = fmt.Appendf(b, "%s\t%s\t%s\t%s", ts, levelName(r.Level), caller(r.PC), r.Message)
		if len(attrs) > 0 {
			b = append(b, '\t')
			b = append(appendAttrs(append(b, '{'), attrs, ""), '}')
		}
	} else {
		head := []slog.Attr{
			slog.String("level", levelName(r.Level)), slog.String("ts", ts),
			slog.String("caller", caller(r.PC)), slog.String("msg", r.Message),
		}
		b = append(appendAttrs(append(b, '{'), append(head, attrs...), ""), '}')
	}
	b = append(b, '\n')
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := h.out.w.Write(b)
	return err
}

func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	case l < levelFatal:
		return "error"
	}
	return "fatal"
}

// caller is the last directory, the file and the line.
func caller(pc uintptr) string {
	if pc == 0 {
		return ""
	}
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	dir, file := filepath.Split(f.File)
	return filepath.Base(dir) + "/" + file + ":" + strconv.Itoa(f.Line)
}

// appendAttrs writes the members of a JSON object; b ends with its brace or a
// member.
func appendAttrs(b []byte, attrs []slog.Attr, prefix string) []byte {
	for _, a := range attrs {
		v := a.Value.Resolve()
		if v.Kind() == slog.KindGroup {
			b = appendAttrs(b, v.Group(), prefix+a.Key+".")
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = appendJSON(b, prefix+a.Key)
		b = append(b, ':')
		b = appendValue(b, v)
	}
	return b
}

func appendValue(b []byte, v slog.Value) []byte {
	switch v.Kind() {
	case slog.KindString:
		return appendJSON(b, v.String())
	case slog.KindDuration:
		return appendJSON(b, v.Duration().String())
	case slog.KindTime:
		return appendJSON(b, v.Time().Format(timeLayout))
	case slog.KindInt64, slog.KindUint64, slog.KindBool:
		return append(b, v.String()...)
	}
	switch x := v.Any().(type) {
	case error:
		return appendJSON(b, x.Error())
	case fmt.Stringer:
		return appendJSON(b, x.String())
	default:
		return appendJSON(b, x)
	}
}

// appendJSON is one JSON value; what has none is shown as text.
func appendJSON(b []byte, v any) []byte {
	var buf strings.Builder
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return strconv.AppendQuote(b, fmt.Sprint(v))
	}
	return append(b, strings.TrimSuffix(buf.String(), "\n")...)
}

// oneLine turns joined errors into one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
