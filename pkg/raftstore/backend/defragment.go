package backend

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime/debug"

	"go.etcd.io/bbolt"
)

// Defragment writes the file anew without its free pages. Readers go on with the old file until they end.
//
// Steps: 1 copy all rows into db.tmp and sync it; 2 rename it to db; 3 sync the directory; 4 open the new file. A crash before 2
// leaves the old file and db.tmp, which Open removes; from 2 on, the old or the new file, which hold the same.
func (db *DB) Defragment() (err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	temp := db.path + tempSuffix
	if err := db.copyTo(temp); err != nil {
		_ = db.opts.FS.Remove(temp)
		return fmt.Errorf("copy the database: %w", err)
	}
	if err := db.Replace(temp); err != nil {
		_ = db.opts.FS.Remove(temp)
		return err
	}
	return nil
}

// Replace renames a file to the one that is open, and goes on with it. Readers go on with the old file until they end. A crash leaves
// the old or the new file.
func (db *DB) Replace(file string) (err error) {
	defer db.guard(debug.SetPanicOnFault(true), &err)
	if err := db.opts.FS.Rename(file, db.path); err != nil {
		return fmt.Errorf("replace the database: %w", err)
	}
	if err := db.opts.FS.SyncDir(filepath.Dir(db.path)); err != nil {
		return fmt.Errorf("sync directory of the database: %w", err)
	}
	h, err := db.open(db.path)
	if err != nil {
		return err
	}
	if err := createBuckets(h); err != nil {
		h.Close()
		return err
	}
	old := db.handle.Swap(h)
	db.measure()
	db.retired.Go(func() { old.Close() }) // waits for the readers of the old file
	return nil
}

func (db *DB) copyTo(path string) error {
	if err := db.opts.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dst, err := bbolt.Open(path, fileMode, &bbolt.Options{OpenFile: db.opts.OpenFile, FreelistType: bbolt.FreelistMapType, PageSize: db.opts.PageBytes, NoSync: true})
	if err != nil {
		return err
	}
	if err := bbolt.Compact(dst, db.handle.Load(), copyTxBytes); err != nil {
		dst.Close()
		return err
	}
	if err := dst.Sync(); err != nil {
		dst.Close()
		return err
	}
	return dst.Close()
}
