package raftstore

import (
	"fmt"

	"go.etcd.io/raft/v3"
)

// raftLogger passes what raft warns of to Config.OnEvent and drops its chatter. The impossible panics, as elsewhere.
type raftLogger struct{ onEvent func(Event) }

var _ raft.Logger = raftLogger{}

func (raftLogger) Debug(...any)          {}
func (raftLogger) Debugf(string, ...any) {}
func (raftLogger) Info(...any)           {}
func (raftLogger) Infof(string, ...any)  {}

func (l raftLogger) Warning(v ...any) { l.onEvent(RaftWarning{Text: fmt.Sprint(v...)}) }
func (l raftLogger) Warningf(format string, v ...any) {
	l.onEvent(RaftWarning{Text: fmt.Sprintf(format, v...)})
}
func (l raftLogger) Error(v ...any) { l.onEvent(RaftWarning{Text: fmt.Sprint(v...)}) }
func (l raftLogger) Errorf(format string, v ...any) {
	l.onEvent(RaftWarning{Text: fmt.Sprintf(format, v...)})
}

func (raftLogger) Fatal(v ...any)                 { panic("raft: " + fmt.Sprint(v...)) }
func (raftLogger) Fatalf(format string, v ...any) { panic("raft: " + fmt.Sprintf(format, v...)) }
func (raftLogger) Panic(v ...any)                 { panic("raft: " + fmt.Sprint(v...)) }
func (raftLogger) Panicf(format string, v ...any) { panic("raft: " + fmt.Sprintf(format, v...)) }
