package backend

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"runtime/debug"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/kubeshim/shim/pkg/raftstore/vfs"
)

// Defragmentation writes the file anew without its free pages, in steps between which it may be written to:
//
//	start    1 make db.tmp
//	a step   2 append pages of the next rows of key; with the last of them db.tmp is made a file of bbolt's; 3 sync db.tmp
//	a step   4 copy the next rows of the other buckets, and new ones of key; before them, those again that a Write has changed since they
//	           were copied; 5 sync db.tmp
//	the last 6 rename db.tmp to db, sync the directory; 7 go on with the new file
//
// Nearly all there is are rows of key, in the order of revisions: what a Write puts is ahead of the copy, and only rows that it deletes are
// behind. They are written by their pages (pageWriter), which costs next to no garbage: there are as many bytes of it otherwise, and
// collections of all the store's objects. From 4 on a step is a transaction of its own of bbolt's. Each reads one of the old file, which
// does not grow by it, and syncs what it has written: the disk is never owed more than that. A crash before 6 leaves the old file and
// db.tmp, which Open removes; from 6 on, the old or the new file, which then hold the same.
//
// It belongs to the goroutine that owns the DB.
type Defragmentation struct {
	db     *DB
	temp   vfs.File // db.tmp
	pages  *pageWriter
	next   *file // db.tmp, behind its pages; nil before
	reader pageReader

	names   []bucketName // in the order of the file
	buckets [][]byte     // in the order of the copy behind the pages: key is the last
	order   map[string]int
	done    []position // of each of buckets
	bucket  int        // that is copied
	changed map[place]struct{}
	again   []place // that were in changed, in order: those are copied first
	copied  int64   // bytes of rows
	worked  int64   // bytes, those of pages of rows that were copied again included
	written int64   // by Writes since the start
	ended   bool
}

var errCanceled = errors.New("the defragmentation was canceled")

// position is what of a bucket is copied.
type position struct {
	all  bool
	upTo []byte // the rows up to this key
}

// place is where a row stands, in the order of the copy.
type place struct {
	bucket int
	key    string
}

func (p place) compare(q place) int {
	if p.bucket != q.bucket {
		return p.bucket - q.bucket
	}
	return strings.Compare(p.key, q.key)
}

// StartDefragment begins a defragmentation. There is one at a time, and it has to be stepped to its end or canceled; Replace and Close
// cancel it.
func (db *DB) StartDefragment() (_ *Defragmentation, err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	if db.defragmentation != nil {
		return nil, errors.New("a defragmentation is under way")
	}
	temp := db.path + tempSuffix
	if err := db.opts.FS.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the copy before: %w", err)
	}
	d := &Defragmentation{db: db, order: make(map[string]int), changed: make(map[place]struct{})}
	if err := d.open(temp); err != nil {
		d.Cancel()
		return nil, fmt.Errorf("make the copy: %w", err)
	}
	db.defragmentation = d
	return d, nil
}

func (d *Defragmentation) open(temp string) error {
	src, err := d.db.Begin()
	if err != nil {
		return err
	}
	defer src.Rollback()
	if _, valid, err := readFacts(src.Tx); err != nil || !valid { // else a Write would make bucket shim anew
		return fmt.Errorf("its checksums are not those of its rows (%v)", err)
	}
	err = src.ForEach(func(name []byte, from *bbolt.Bucket) error {
		d.names = append(d.names, bucketName{bytes.Clone(name), from.Sequence()})
		if !bytes.Equal(name, bucketKey) {
			d.buckets = append(d.buckets, bytes.Clone(name))
		}
		return nil
	})
	d.buckets = append(d.buckets, bucketKey)
	d.done = make([]position, len(d.buckets))
	for i, name := range d.buckets {
		d.order[string(name)] = i
	}
	if err != nil {
		return err
	}
	if d.temp, err = d.db.opts.FS.Create(temp); err != nil {
		return err
	}
	d.pages = newPageWriter(d.temp, d.db.opts.PageBytes)
	d.reader = pageReader{file: d.db.current.raw, path: d.db.path, pageBytes: int64(d.db.pageSize())}
	return nil
}

// Step copies about so many bytes at most, at least a row. Once it answers done, the file is the new one. After an error the
// defragmentation is canceled.
func (d *Defragmentation) Step(bytesMax int) (done bool, err error) {
	defer func() {
		if err != nil {
			d.Cancel()
		}
	}()
	defer d.db.guard(debug.SetPanicOnFault(true), &err)
	if d.ended {
		return false, errCanceled
	}
	if d.next == nil {
		err = d.copyPages(bytesMax)
	} else {
		done, err = d.copy(bytesMax)
	}
	if err != nil {
		return false, fmt.Errorf("copy the database: %w", err)
	}
	if err := d.temp.Sync(); err != nil {
		return false, fmt.Errorf("sync the copy of the database: %w", err)
	}
	if !done {
		return false, nil
	}
	return true, d.finish()
}

// Copied is how many bytes of rows were copied so far, but for those that were copied again.
func (d *Defragmentation) Copied() int64 { return d.copied }

// Worked is what steps have spent of their bytes so far: Copied, and the pages and rows that were copied again.
func (d *Defragmentation) Worked() int64 { return d.worked }

func (d *Defragmentation) count(rowBytes int) {
	d.copied += int64(rowBytes)
	d.worked += int64(rowBytes)
}

// Written is how many bytes of rows Writes have put since the start. Most of them are to be copied as well.
func (d *Defragmentation) Written() int64 { return d.written }

// copyPages appends pages of the next rows of key. Behind the last ones the copy is open as a file of bbolt's.
func (d *Defragmentation) copyPages(bytesMax int) error {
	src, err := d.db.Begin()
	if err != nil {
		return err
	}
	defer src.Rollback()
	at, all := &d.done[len(d.buckets)-1], true
	if root := src.Bucket(bucketKey).Root(); root != 0 { // else there are few, and copy takes them
		left := bytesMax
		all, err = d.reader.walk(uint64(root), at.upTo, func(k, v []byte) (more bool, err error) {
			at.upTo = append(at.upTo[:0], k...)
			d.count(len(k) + len(v))
			left -= len(k) + len(v)
			d.pages.add(k, v)
			return left > 0, nil
		})
	}
	switch {
	case err != nil:
		return err
	case all: // these were the last
		return d.openPages()
	}
	return d.pages.flush()
}

// openPages makes bbolt's file of the pages.
func (d *Defragmentation) openPages() error {
	if err := d.pages.finish(d.names); err != nil {
		return err
	}
	d.pages = nil
	temp := d.db.path + tempSuffix
	h, err := d.db.open(temp)
	if err != nil {
		return err
	}
	h.NoSync, h.NoGrowSync = true, true // Step syncs
	next, err := newFile(h, temp)
	if err != nil {
		return errors.Join(err, h.Close())
	}
	d.next = next
	return nil
}

// copy is one transaction. It answers whether the copy holds what the file holds.
func (d *Defragmentation) copy(bytesMax int) (all bool, err error) {
	src, err := d.db.Begin()
	if err != nil {
		return false, err
	}
	defer src.Rollback()
	err = d.next.Update(func(dst *bbolt.Tx) error {
		left, err := d.copyAgain(src.Tx, dst, bytesMax)
		for err == nil && left > 0 && !all {
			left, all, err = d.rows(src.Tx, dst, left)
		}
		return err
	})
	return all && len(d.changed) == 0 && len(d.again) == 0, err
}

// copyAgain brings rows up to date that were changed since they were copied, and leaves at least half of the bytes for others. There may be
// as many as were deleted while the pages were written: they are sorted once. It looks at all of a step before it changes any: a cursor
// that meets an emptied page at the end of a bucket turns in circles (bbolt 1.5.0).
func (d *Defragmentation) copyAgain(src, dst *bbolt.Tx, bytesMax int) (left int, err error) {
	left = bytesMax
	var rows []place
	page, pageBytes := int64(-1), int64(d.next.Info().PageSize)
	if len(d.again) == 0 && len(d.changed) > 0 {
		d.again = slices.SortedFunc(maps.Keys(d.changed), place.compare)
		d.changed = make(map[place]struct{})
	}
	for _, p := range d.again {
		if left <= 0 {
			break
		}
		k, _ := dst.Bucket(d.buckets[p.bucket]).Cursor().Seek([]byte(p.key))
		if at := offset(d.next.DB, k) / pageBytes; at != page {
			page, left = at, left-int(pageBytes)
		}
		left -= len(src.Bucket(d.buckets[p.bucket]).Get([]byte(p.key)))
		rows = append(rows, p)
	}
	for _, p := range rows {
		key, to := []byte(p.key), dst.Bucket(d.buckets[p.bucket])
		if v := src.Bucket(d.buckets[p.bucket]).Get(key); v != nil {
			err = to.Put(key, v)
		} else {
			err = to.Delete(key)
		}
		if err != nil {
			return 0, err
		}
	}
	d.again, d.worked = d.again[len(rows):], d.worked+int64(bytesMax-left)
	return max(left, bytesMax/2, 1), nil
}

// rows copies the next rows of the bucket at hand. It answers how many bytes are left of the step, and whether these were the last of all.
func (d *Defragmentation) rows(src, dst *bbolt.Tx, bytesMax int) (left int, last bool, err error) {
	from, to := src.Bucket(d.buckets[d.bucket]), dst.Bucket(d.buckets[d.bucket])
	to.FillPercent = 1
	left = bytesMax
	at := &d.done[d.bucket]
	visit := func(k, v []byte) (more bool, err error) {
		at.upTo = append(at.upTo[:0], k...)
		d.count(len(k) + len(v))
		left -= len(k) + len(v)
		return left > 0, to.Put(k, bytes.Clone(v)) // bbolt keeps it until the end of the transaction
	}
	more := true
	if root := from.Root(); root != 0 {
		more, err = d.reader.walk(uint64(root), at.upTo, visit)
	} else { // its page is part of another one, and small
		c := from.Cursor()
		for k, v := c.Seek(at.upTo); k != nil && err == nil; k, v = c.Next() {
			if bytes.Compare(k, at.upTo) > 0 {
				_, err = visit(k, v)
			}
		}
	}
	switch {
	case err != nil || !more:
		return left, false, err
	case d.bucket == len(d.buckets)-1: // it stays at its last row, so that new ones are ahead
		return left, true, nil
	}
	at.all = true
	d.bucket++
	return left, false, nil
}

// touched is called for each row that a Write changes, with the bytes of the value that it puts.
func (d *Defragmentation) touched(bucket, key []byte, valueBytes int) {
	if d == nil {
		return
	}
	i := d.order[string(bucket)]
	if at := &d.done[i]; at.all || bytes.Compare(key, at.upTo) <= 0 {
		d.changed[place{i, string(key)}] = struct{}{}
	}
	d.written += int64(len(key) + valueBytes)
}

// finish switches to the new file, which is synced.
func (d *Defragmentation) finish() error {
	d.next.NoSync, d.next.NoGrowSync = false, false
	err := d.db.replace(d.db.path+tempSuffix, d.next)
	if d.db.current == d.next {
		d.end()
	}
	return err
}

// Cancel ends it before it is done, and removes the copy. Otherwise it does nothing.
func (d *Defragmentation) Cancel() {
	if d == nil || d.ended {
		return
	}
	d.end()
	if d.next != nil {
		_ = d.next.Close()
	}
	_ = d.db.opts.FS.Remove(d.db.path + tempSuffix) // Open does it otherwise
}

func (d *Defragmentation) end() {
	d.ended, d.db.defragmentation = true, nil
	if d.temp != nil {
		_ = d.temp.Close()
	}
}
