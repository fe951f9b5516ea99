package backend

import (
	"errors"
	"fmt"
	"io/fs"
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

func (db *DB) copyTo(path string) error {
	if err := db.opts.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dst, err := bbolt.Open(path, fileMode, &bbolt.Options{OpenFile: db.opts.OpenFile, FreelistType: bbolt.FreelistMapType, PageSize: db.opts.PageBytes, NoSync: true})
	if err != nil {
		return err
	}
	if err := bbolt.Compact(dst, db.current.DB, copyTxBytes); err != nil {
		dst.Close()
		return err
	}
	if err := dst.Sync(); err != nil {
		dst.Close()
		return err
	}
	return dst.Close()
}
