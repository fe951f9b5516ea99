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
//	start    1 make db.tmp with all buckets
//	a step   2 copy the next rows; before them, those again that a Write has changed since they were copied; 3 sync db.tmp
//	the last 4 rename db.tmp to db, sync the directory; 5 go on with the new file
//
// The small buckets are first and the rows of key last, in the order of revisions: what a Write puts is ahead of the copy, and only
// rows that it deletes, and its facts, are behind. A step is a transaction of its own in either file, so the old one does not grow by
// it, and syncs what it has written: the disk is never owed more than that. A crash before 4 leaves the old file and db.tmp, which Open
// removes; from 4 on, the old or the new file, which then hold the same.
//
// It belongs to the goroutine that owns the DB.
type Defragmentation struct {
	db     *DB
	next   *file    // db.tmp
	synced vfs.File // db.tmp
	reader pageReader

	buckets [][]byte // in the order of the copy
	order   map[string]int
	bucket  int    // those before it are copied,
	above   []byte // and its rows up to this key
	changed map[place]struct{}
	copied  int64 // bytes of rows
	written int64 // by Writes since the start
	ended   bool
}

var errCanceled = errors.New("the defragmentation was canceled")

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

func (d *Defragmentation) open(temp string) (err error) {
	o := &d.db.opts
	// All is synced by Step. The file grows by what is written to it.
	h, err := bbolt.Open(temp, fileMode, &bbolt.Options{OpenFile: d.db.openFile, FreelistType: bbolt.FreelistMapType, PageSize: o.PageBytes,
		InitialMmapSize: o.MapBytes, NoSync: true, NoGrowSync: true})
	if err != nil {
		return err
	}
	if d.next, err = newFile(h, temp); err != nil {
		return errors.Join(err, h.Close())
	}
	if d.synced, err = o.FS.Open(temp); err != nil {
		return err
	}
	d.reader = pageReader{file: d.db.current.raw, path: d.db.path, pageBytes: int64(d.db.pageSize())}
	src, err := d.db.Begin()
	if err != nil {
		return err
	}
	defer src.Rollback()
	if _, valid, err := readFacts(src.Tx); err != nil || !valid { // else a Write would make bucket shim anew
		return fmt.Errorf("its checksums are not those of its rows (%v)", err)
	}
	return d.next.Update(func(dst *bbolt.Tx) error {
		err := src.ForEach(func(name []byte, from *bbolt.Bucket) error {
			if !bytes.Equal(name, bucketKey) {
				d.buckets = append(d.buckets, bytes.Clone(name))
			}
			to, err := dst.CreateBucket(name)
			if err != nil {
				return err
			}
			return to.SetSequence(from.Sequence())
		})
		d.buckets = append(d.buckets, bucketKey)
		for i, name := range d.buckets {
			d.order[string(name)] = i
		}
		return err
	})
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
	if done, err = d.copy(bytesMax); err != nil {
		return false, fmt.Errorf("copy the database: %w", err)
	}
	if err := d.synced.Sync(); err != nil {
		return false, fmt.Errorf("sync the copy of the database: %w", err)
	}
	if !done {
		return false, nil
	}
	return true, d.finish()
}

// Copied is how many bytes of rows were copied so far.
func (d *Defragmentation) Copied() int64 { return d.copied }

// Written is how many bytes of rows Writes have put since the start. Most of them are to be copied as well.
func (d *Defragmentation) Written() int64 { return d.written }

// copy is one transaction. It answers whether the copy holds what the file holds.
func (d *Defragmentation) copy(bytesMax int) (all bool, err error) {
	src, err := d.db.Begin()
	if err != nil {
		return false, err
	}
	defer src.Rollback()
	d.reader.reset()
	err = d.next.Update(func(dst *bbolt.Tx) error {
		left, err := d.again(src.Tx, dst, bytesMax)
		for err == nil && left > 0 && !all {
			left, all, err = d.rows(src.Tx, dst, left)
		}
		return err
	})
	return all && len(d.changed) == 0, err
}

// again brings rows up to date that were changed since they were copied, and leaves at least half of the bytes for others. It looks at all of them before it changes any: a cursor that
// meets an emptied page at the end of a bucket turns in circles (bbolt 1.5.0).
func (d *Defragmentation) again(src, dst *bbolt.Tx, bytesMax int) (left int, err error) {
	left = bytesMax
	var rows []place
	page, pageBytes := int64(-1), int64(d.next.Info().PageSize)
	for _, p := range slices.SortedFunc(maps.Keys(d.changed), place.compare) {
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
		delete(d.changed, p)
	}
	return max(left, bytesMax/2, 1), nil
}

// rows copies the next rows of the bucket at hand. It answers how many bytes are left of the step, and whether these were the last of all.
func (d *Defragmentation) rows(src, dst *bbolt.Tx, bytesMax int) (left int, last bool, err error) {
	from, to := src.Bucket(d.buckets[d.bucket]), dst.Bucket(d.buckets[d.bucket])
	to.FillPercent = 1
	left = bytesMax
	visit := func(k, v []byte) (more bool, err error) {
		d.above = append(d.above[:0], k...)
		d.copied += int64(len(k) + len(v))
		left -= len(k) + len(v)
		return left > 0, to.Put(k, v)
	}
	more := true
	if root := from.Root(); root != 0 {
		more, err = d.reader.walk(uint64(root), d.above, visit)
	} else { // its page is part of another one, and small
		c := from.Cursor()
		for k, v := c.Seek(d.above); k != nil && err == nil; k, v = c.Next() {
			if bytes.Compare(k, d.above) > 0 {
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
	d.bucket, d.above = d.bucket+1, nil
	return left, false, nil
}

// touched is called for each row that a Write changes, with the bytes of the value that it puts.
func (d *Defragmentation) touched(bucket, key []byte, valueBytes int) {
	if d == nil {
		return
	}
	if i := d.order[string(bucket)]; i < d.bucket || i == d.bucket && bytes.Compare(key, d.above) <= 0 {
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
	if d.synced != nil {
		_ = d.synced.Close()
	}
}
