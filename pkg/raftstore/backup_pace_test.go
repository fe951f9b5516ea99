package raftstore

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestBackupPace: reading is bounded by the rate, and by half of the time if the disk is slow; a slow reader is waited for and not made up for.
func TestBackupPace(t *testing.T) {
	const chunk, chunks = 256 << 10, 256 // 64 MiB
	for _, c := range []struct{ read, taken, want time.Duration }{
		{0, 0, time.Second * chunks * chunk / backupRate},
		{time.Millisecond, 0, time.Second * chunks * chunk / backupRate},
		{10 * time.Millisecond, 0, chunks * 20 * time.Millisecond},
		{time.Millisecond, 50 * time.Millisecond, chunks * 50 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, w := io.Pipe()
			var reader sync.WaitGroup
			reader.Go(func() {
				buf := make([]byte, chunk)
				for {
					if _, err := io.ReadFull(r, buf); err != nil {
						return
					}
					time.Sleep(c.taken)
				}
			})
			start := time.Now()
			err := copyPaced(w, func(w io.Writer, pace func(int, time.Duration) error) (n int64, err error) {
				for range chunks {
					time.Sleep(c.read)
					w.Write(make([]byte, chunk))
					if err := pace(chunk, c.read); err != nil {
						return 0, err
					}
				}
				return 0, nil
			}, newPacer(t.Context(), backupRate))
			took := time.Since(start)
			w.Close()
			reader.Wait()
			if slack := took - c.want; err != nil || slack < -60*time.Millisecond || slack > 60*time.Millisecond { // the first and the last chunk
				t.Errorf("reads of %v, taken in %v: %v, %v, want %v", c.read, c.taken, took, err, c.want)
			}
		})
	}
}

// TestBackupStalled: a reader that goes away without a word does not keep the database's pages for good; the store's end does not wait for it.
func TestBackupStalled(t *testing.T) {
	run := func(t *testing.T, p *pacer) (r *io.PipeReader, ended chan error) {
		r, w := io.Pipe()
		ended = make(chan error, 1)
		go func() {
			ended <- copyPaced(w, func(w io.Writer, pace func(int, time.Duration) error) (n int64, err error) {
				for {
					if _, err := w.Write(make([]byte, 1<<10)); err != nil {
						return 0, err
					}
					if err := pace(1<<10, 0); err != nil {
						return 0, err
					}
				}
			}, p)
		}()
		return r, ended
	}
	synctest.Test(t, func(t *testing.T) {
		r, ended := run(t, newPacer(t.Context(), backupRate))
		buf := make([]byte, 1<<10)
		for range 5 { // it is slow, but goes on
			time.Sleep(backupStallMax - time.Second)
			if _, err := io.ReadFull(r, buf); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if err := <-ended; err == nil || time.Since(start) > backupStallMax+time.Second {
			t.Errorf("the copy ends with %v after %v", err, time.Since(start))
		}
		if _, err := r.Read(buf); !errors.Is(err, errStalled) {
			t.Errorf("the reader is told %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, ended := run(t, newPacer(ctx, 1)) // a chunk is due in 17 minutes
		if _, err := io.ReadFull(r, make([]byte, 2<<10)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, ErrStopped) {
			t.Errorf("the copy ends with %v", err)
		}
	})
}
