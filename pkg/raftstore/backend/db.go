package backend

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

const (
	// pageBytes is a compromise; BenchmarkWrite shows what other sizes cost.
	pageBytes = 16 << 10
	// mapBytes is what is mapped at first, as etcd does: no reader has to be waited for until the file outgrows it. An address
	// space of 32 bits has no room for that.
	mapBytes = min(10<<30, math.MaxInt/8)
	// lockTimeout bounds the wait for a file that another process has open.
	lockTimeout = time.Second
	fileMode    = 0o600
	tempSuffix  = ".tmp"
	// freelistBytes is how long a list of free pages may be for each transaction to write it: that of 128 MiB of them.
	freelistBytes = 64 << 10
	// freelistDiskMin is how much room the disk has to have for a list to be left out. A transaction that finds none looks at all pages for
	// the list then, with the log waiting for the same room.
	freelistDiskMin = 256 << 20
	// forgetParts is how many parts leave what they have touched of the mapping in memory, a megabyte or so each.
	forgetParts = 32
	// retireBytes is how much of a file that was replaced is freed at a time; in between there are pauses of retirePauseFactor times what
	// that took.
	retireBytes       = 8 << 20
	retirePauseFactor = 9
	retirePauseMax    = 200 * time.Millisecond
)

// DB is an open checkpoint file.
type DB struct {
	path string
	opts Options

	mu      sync.RWMutex
	current *file // its owner changes it with mu held; others read it with mu held
	closed  bool  // no reader may begin

	newest   sync.RWMutex // held to read beside transactions, see appendNewest
	txid     int          // of the last transaction that the file shows
	unsynced error        // sticky: the file shows a transaction that may not be durable

	replaced []*file        // in whose place current is, but maybe not after a crash
	retired  sync.WaitGroup // the goroutines that close such files
	closing  chan struct{}  // closed to hurry them

	defragmentation *Defragmentation // nil: none is under way

	size, inUse atomic.Int64 // bytes
	rows        openRows
	finder      pageFinder // of Write
	more        bool       // the last transaction was a part that others follow soon
	parts       int        // transactions since what they have touched of the mapping was forgotten
}

// Options of a DB. The zero value is the default.
type Options struct {
	// FS makes the directory, and renames and removes files. Default vfs.OS.
	FS vfs.FS
	// OpenFile opens files for bbolt. Default os.OpenFile.
	OpenFile func(name string, flag int, mode os.FileMode) (*os.File, error)
	// ReadOnly opens a file that is there and changes nothing.
	ReadOnly bool
	// MapBytes is the room that is mapped at first. Default 10 GiB; 256 MiB where addresses have 32 bits.
	MapBytes int
	// MemoryLocked says that all memory of the process is locked. The mapping is not to be, unless the file outgrows MapBytes.
	MemoryLocked bool
	// PageBytes is the size of the pages of a file that is made, a power of two from 4 KiB to 64 KiB. Default 16 KiB. Larger pages waste
	// less room beside rows of a few kB and cost less CPU; smaller ones write less around a row that is changed. A file that is there
	// keeps its size until it is defragmented.
	PageBytes int
	// FreelistBytes is how long the list of free pages may be for a transaction to write it that others follow soon: parts of a checkpoint
	// and of a removal of dead rows. The last one writes it, or Close. After a crash before that Open has to look at all pages. Less makes
	// parts of a large file smaller; more makes such a start rare. Default 64 KiB, the list of 128 MiB.
	FreelistBytes int64
	// DiskFree is how many bytes the disk of a file has left, or -1 if that is not known. Default: what the system says.
	DiskFree func(path string) int64
}

// CorruptError is a file that does not hold what was written to it. Offset is -1 when no single place is at fault.
type CorruptError struct {
	File   string
	Offset int64
	Reason string
}

func (e *CorruptError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("corrupt file %s: %s", e.File, e.Reason)
	}
	return fmt.Sprintf("corrupt file %s at offset %d: %s", e.File, e.Offset, e.Reason)
}

// Open opens the file, or makes it with all buckets. Unless it is opened to read only, its rows are to be read by Load before anything else
// reads them: Load looks for pages that are damaged.
func Open(path string, o Options) (db *DB, err error) {
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.OpenFile == nil {
		o.OpenFile = os.OpenFile
	}
	if o.DiskFree == nil {
		o.DiskFree = diskFree
	}
	if o.MapBytes == 0 {
		o.MapBytes = mapBytes
	}
	if o.PageBytes == 0 {
		o.PageBytes = pageBytes
	}
	if o.FreelistBytes == 0 {
		o.FreelistBytes = freelistBytes
	}
	db = &DB{path: path, opts: o, closing: make(chan struct{})}
	if o.ReadOnly {
		return db.openReadOnly()
	}
	if err := o.FS.MkdirAll(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("make directory of the database: %w", err)
	}
	if err := o.FS.Remove(path + tempSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove leftover of a defragmentation: %w", err)
	}
	defer db.guard(debug.SetPanicOnFault(true), &err)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := db.create(); err != nil {
			return nil, fmt.Errorf("make the database: %w", err)
		}
	}
	if err := db.settle(); err != nil {
		return nil, err
	}
	h, err := db.open(path)
	if err != nil {
		return nil, err
	}
	if err := createBuckets(h, path); err != nil {
		h.Close()
		return nil, err
	}
	if db.current, err = newFile(h, path); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	db.measure()
	return db, nil
}

// create makes an empty file under another name first, so that a crash leaves none or a whole one.
func (db *DB) create() error {
	temp := db.path + tempSuffix
	h, err := bbolt.Open(temp, fileMode, &bbolt.Options{OpenFile: db.opts.OpenFile, FreelistType: bbolt.FreelistMapType, PageSize: db.opts.PageBytes})
	if err != nil {
		return err
	}
	if err := errors.Join(createBuckets(h, temp), h.Close()); err != nil {
		return err
	}
	if err := db.opts.FS.Rename(temp, db.path); err != nil {
		return err
	}
	return db.opts.FS.SyncDir(filepath.Dir(db.path))
}

func (db *DB) openReadOnly() (_ *DB, err error) {
	if _, err := os.Stat(db.path); err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	defer db.guard(debug.SetPanicOnFault(true), &err)
	h, err := db.open(db.path)
	if err != nil {
		return nil, err
	}
	if db.current, err = newFile(h, db.path); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	db.measure()
	return db, nil
}

// createBuckets adds those that are missing. Before it writes to a file, it looks at all pages of it.
func createBuckets(h *bbolt.DB, path string) error {
	tx, err := h.Begin(true)
	if err != nil {
		return fmt.Errorf("begin to write the database: %w", err)
	}
	defer tx.Rollback()
	if meta := tx.Bucket(bucketMeta); meta != nil && !Readable(string(meta.Get(metaStorageVersion))) {
		return nil // it will be refused, and stays as it is
	}
	missing := 0
	for _, name := range buckets {
		if tx.Bucket(name) != nil {
			continue
		}
		if at, reason := locate(path); missing == 0 && reason != "" {
			return &CorruptError{File: path, Offset: at, Reason: reason}
		}
		missing++
		if _, err := tx.CreateBucket(name); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	if missing == 0 {
		return nil
	}
	return tx.Commit()
}

func (db *DB) open(path string) (*bbolt.DB, error) {
	listless, stop := readAlong(path)
	at, reason := locateIn(path, !db.opts.ReadOnly && !listless) // bbolt looks at all pages then, on a goroutine that guard is not of
	stop()
	if reason != "" {
		return nil, &CorruptError{File: path, Offset: at, Reason: reason}
	}
	_, stop = readAlong(path)
	defer stop()
	h, err := bbolt.Open(path, fileMode, &bbolt.Options{
		Timeout:         lockTimeout,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: db.opts.MapBytes,
		OpenFile:        db.openFile,
		ReadOnly:        db.opts.ReadOnly,
		NoFreelistSync:  true, // a list that is missing would be written before anything else; a full disk may have no room for it
	})
	switch {
	case err == nil:
		if db.opts.MemoryLocked {
			unlock(h.Info().Data, int64(db.opts.MapBytes))
		}
		return h, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: it is in use by another process", path)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, &CorruptError{File: path, Offset: 0, Reason: fmt.Sprintf("no valid meta page: %v", err)}
	}
	return nil, fmt.Errorf("open %s: %w", path, err)
}

// guard turns what bbolt does with a damaged file, panics and reads outside the mapping, into a CorruptError. It is to be
// deferred, with what SetPanicOnFault(true) answered.
func (db *DB) guard(old bool, err *error) {
	debug.SetPanicOnFault(old)
	r := recover()
	if r == nil {
		return
	}
	offset, reason := locate(db.path)
	if reason == "" {
		reason = fmt.Sprint(r)
	}
	*err = &CorruptError{File: db.path, Offset: offset, Reason: reason}
}

// ErrUnsynced: the last sync of a transaction failed, the file shows the transaction, and nobody knows whether the disk has it. The next one
// would write to pages that were in use before it, and all that a crash leaves might be what was before it. So there is none: the file has to
// be opened anew.
var ErrUnsynced = errors.New("the database was written and not synced")

// update runs one transaction and notes the size of the file.
func (db *DB) update(fn func(*bbolt.Tx) error) error {
	if db.unsynced != nil {
		return db.unsynced
	}
	if err := db.syncName(); err != nil {
		return err
	}
	db.newest.Lock() // who reads what the transaction before the last has left comes to an end
	db.newest.Unlock()
	before := db.txid
	err := db.current.Update(fn)
	db.measure()
	if err != nil && db.txid != before {
		db.unsynced = fmt.Errorf("%w: %w", ErrUnsynced, err)
		return db.unsynced
	}
	return err
}

// settle writes the meta pages again as they are, before bbolt opens the file, which may write to it. Their sync may have failed in an earlier
// process: then the page cache shows a transaction that the disk does not have, and only a write makes the next sync mean it. Its other
// pages were synced before. On a full disk, where a page may need a new place, it is left for the next start.
func (db *DB) settle() (err error) {
	lock, err := db.opts.FS.Lock(db.path)
	if errors.Is(err, vfs.ErrLocked) {
		return nil // bbolt will say so
	}
	if err != nil {
		return fmt.Errorf("lock the database: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	f, err := db.opts.FS.Open(db.path)
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return fmt.Errorf("size of the database: %w", err)
	}
	w := &pageWalker{file: f}
	if !w.newest(size) {
		return nil // it is not opened either
	}
	metas := make([]byte, 2*w.pageBytes)
	if _, err = f.ReadAt(metas, 0); err == nil {
		_, err = f.WriteAt(metas, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil && !vfs.IsNoSpace(err) {
		return fmt.Errorf("write the meta pages again: %w", err)
	}
	return nil
}

func (db *DB) measure() {
	h := db.current
	_ = h.View(func(tx *bbolt.Tx) error {
		db.size.Store(tx.Size())
		db.txid = tx.ID()
		free := int64(h.Stats().FreePageN+h.Stats().PendingPageN) * int64(h.Info().PageSize)
		db.inUse.Store(tx.Size() - free)
		return nil
	})
	// It looks at the whole mapping, however little of it was touched: 12 GB take milliseconds.
	if db.parts++; !db.more || db.parts >= forgetParts {
		forget(h.Info().Data, db.size.Load())
		db.parts = 0
	}
}

// freelistBytes is how long the list of free pages is in the file.
func (db *DB) freelistBytes() int64 {
	const idBytes = 8
	s := db.current.Stats()
	return idBytes * int64(s.FreePageN+s.PendingPageN)
}

// leavesFreelistOut tells whether a transaction that others follow soon does not write the list: of a large file it may take megabytes, and
// bbolt writes all of it each time.
func (db *DB) leavesFreelistOut() bool {
	if db.freelistBytes() <= db.opts.FreelistBytes {
		return false
	}
	free := db.DiskFree()
	return free < 0 || free >= freelistDiskMin
}

// Size is the size of the file in bytes, never 0.
func (db *DB) Size() int64 { return db.size.Load() }

// SizeInUse is the part of Size that is not free pages, in bytes.
func (db *DB) SizeInUse() int64 { return db.inUse.Load() }

// DiskFree is how many bytes the disk has left, or -1 if that is not known.
func (db *DB) DiskFree() int64 { return db.opts.DiskFree(db.path) }

func (db *DB) pageSize() int { return db.current.Info().PageSize }

// Path is the name of the file.
func (db *DB) Path() string { return db.path }

// offset is the place in the file of bytes that bbolt gave.
func offset(h *bbolt.DB, b []byte) int64 {
	if len(b) == 0 {
		return -1
	}
	at := int64(uintptr(unsafe.Pointer(unsafe.SliceData(b))) - h.Info().Data)
	if at < 0 || at >= mapBytes { // bbolt copies what is not aligned
		return -1
	}
	return at
}
