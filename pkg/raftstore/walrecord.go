package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/kubeshim/shim/pkg/raftstore/wal"
)

// Records of the WAL. All integers are little endian.
//
//	identity    version u32 | member u64 | cluster u64                first record of every segment
//	checkpoint  index u64 | term u64 | raftpb.ConfState               what bbolt holds; repeated in every segment
//	hard state  term u64 | vote u64 | commit u64                      the last one counts; repeated in every segment
//	install     index u64 | term u64                                  a snapshot replaces all before; see install.go
//	entry       index u64 | term u64 | type u8 | data                 data: InternalRaftRequest or raftpb.ConfChange
//	last entry  hard state | entry                                    of an append, where both changed
//
// An entry replaces all entries of its index and above that came before it.
const (
	recordIdentity   = 1
	recordCheckpoint = 2
	recordHardState  = 3
	recordEntry      = 4
	recordInstall    = 5
	recordLastEntry  = 6
)

// formatVersion is raised when an older program could not read what is written. Version 1 had no last entries.
const formatVersion = 2

const (
	entryHeaderBytes = 17
	hardStateBytes   = 24
)

var errShortRecord = errors.New("record is too short")

type identity struct{ member, cluster uint64 }

func (id identity) record() wal.Record {
	b := binary.LittleEndian.AppendUint32(nil, formatVersion)
	b = binary.LittleEndian.AppendUint64(b, id.member)
	b = binary.LittleEndian.AppendUint64(b, id.cluster)
	return wal.Record{Type: recordIdentity, Data: b}
}

func decodeIdentity(b []byte) (identity, error) {
	if len(b) < 4 {
		return identity{}, errShortRecord
	}
	if v := binary.LittleEndian.Uint32(b); v > formatVersion {
		return identity{}, fmt.Errorf("log has format %d, this program reads up to %d: %w", v, formatVersion, ErrNewerFormat)
	}
	if len(b) != 20 {
		return identity{}, errShortRecord
	}
	return identity{member: binary.LittleEndian.Uint64(b[4:]), cluster: binary.LittleEndian.Uint64(b[12:])}, nil
}

// mark says which state bbolt holds.
type mark struct {
	index, term uint64
	conf        *raftpb.ConfState
}

func (m mark) record() wal.Record {
	b := binary.LittleEndian.AppendUint64(nil, m.index)
	b = binary.LittleEndian.AppendUint64(b, m.term)
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, m.conf)
	if err != nil {
		panic(fmt.Sprintf("marshal conf state %v: %v", m.conf, err))
	}
	return wal.Record{Type: recordCheckpoint, Data: b}
}

func decodeMark(b []byte) (mark, error) {
	if len(b) < 16 {
		return mark{}, errShortRecord
	}
	m := mark{index: binary.LittleEndian.Uint64(b), term: binary.LittleEndian.Uint64(b[8:]), conf: &raftpb.ConfState{}}
	if err := proto.Unmarshal(b[16:], m.conf); err != nil {
		return mark{}, fmt.Errorf("decode conf state: %w", err)
	}
	return m, nil
}

// installRecord says that the state at the mark replaces the log.
func installRecord(m mark) wal.Record {
	b := binary.LittleEndian.AppendUint64(nil, m.index)
	return wal.Record{Type: recordInstall, Data: binary.LittleEndian.AppendUint64(b, m.term)}
}

func decodeInstall(b []byte) (index, term uint64, err error) {
	if len(b) != 16 {
		return 0, 0, errShortRecord
	}
	return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), nil
}

func hardStateRecord(hs *raftpb.HardState) wal.Record {
	b := binary.LittleEndian.AppendUint64(nil, hs.GetTerm())
	b = binary.LittleEndian.AppendUint64(b, hs.GetVote())
	b = binary.LittleEndian.AppendUint64(b, hs.GetCommit())
	return wal.Record{Type: recordHardState, Data: b}
}

func decodeHardState(b []byte) (*raftpb.HardState, error) {
	if len(b) != hardStateBytes {
		return nil, errShortRecord
	}
	return &raftpb.HardState{
		Term:   new(binary.LittleEndian.Uint64(b)),
		Vote:   new(binary.LittleEndian.Uint64(b[8:])),
		Commit: new(binary.LittleEndian.Uint64(b[16:])),
	}, nil
}

// entryHeader goes in front of the entry's data.
func entryHeader(dst []byte, e *raftpb.Entry) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, e.GetIndex())
	dst = binary.LittleEndian.AppendUint64(dst, e.GetTerm())
	return append(dst, byte(e.GetType()))
}

// decodeLastEntry aliases b.
func decodeLastEntry(b []byte) (*raftpb.Entry, *raftpb.HardState, error) {
	if len(b) < hardStateBytes {
		return nil, nil, errShortRecord
	}
	hs, err := decodeHardState(b[:hardStateBytes])
	if err != nil {
		return nil, nil, err
	}
	e, err := decodeEntry(b[hardStateBytes:])
	return e, hs, err
}

// decodeEntry aliases b.
func decodeEntry(b []byte) (*raftpb.Entry, error) {
	if len(b) < entryHeaderBytes {
		return nil, errShortRecord
	}
	return &raftpb.Entry{
		Index: new(binary.LittleEndian.Uint64(b)),
		Term:  new(binary.LittleEndian.Uint64(b[8:])),
		Type:  raftpb.EntryType(b[16]).Enum(),
		Data:  b[entryHeaderBytes:len(b):len(b)],
	}, nil
}
