package wal

import (
	"fmt"
	"path"
)

// rotate makes the spare the current segment, the first one of an empty log too (doc.go, write path 2). With ErrNoSpace or ErrTooLarge nothing has changed.
func (w *WAL) rotate() error {
	if w.file != nil {
		if err := w.Sync(); err != nil {
			return err
		}
	}
	w.dirMu.Lock()
	defer w.dirMu.Unlock()
	if err := w.reserve(); err != nil {
		if !isNoSpace(err) {
			return w.fail(err)
		}
		return err
	}
	header := segmentHeader{
		version: formatVersion, number: w.header.number + 1, salt: w.o.Salt(), firstRecord: w.enc.number + 1,
		bytes: w.o.SegmentBytes, prevChain: w.enc.chain, zeroed: w.spare.zeroed,
	}
	e, err := w.encodeHead(header)
	if err != nil {
		return err
	}
	return w.install(header, e)
}

// encodeHead gives the buffer that a segment begins with: the header block and the caller's records.
func (w *WAL) encodeHead(header segmentHeader) (encoder, error) {
	recs := w.o.Header()
	header.records = uint32(len(recs))
	block, seed := header.encode()
	e := encoder{seed: seed, chain: seed, number: header.firstRecord - 1}
	e.reserve(headerBytes)
	e.buf = append(e.buf, block...)
	for _, r := range recs {
		if r.Type == TypeReserved {
			return e, ErrReservedType
		}
		e.reserve(recordBytes(int64(len(r.Data))))
		e.add(r.Type, header.firstRecord-1, r.Data)
	}
	if limit := w.o.SegmentBytes / 2; int64(len(e.buf)) > limit {
		return e, fmt.Errorf("segment begins with %d bytes, at most %d: %w", len(e.buf), limit, ErrTooLarge)
	}
	return e, nil
}

// install writes the head into the spare and gives it its name, under dirMu.
func (w *WAL) install(header segmentHeader, e encoder) error {
	spare := path.Join(w.dir, spareName)
	file, err := w.fs.OpenDirect(spare)
	if err != nil {
		return w.fail(fmt.Errorf("open spare segment: %w", err))
	}
	end := int64(len(e.buf))
	w.spare.zeroed = false // until it is known what came of the write
	if _, err := file.WriteAt(e.pages(), 0); err != nil {
		file.Close()
		return w.failUnlessNoSpace(noSpaceOr("write segment header", err))
	}
	if err := file.Sync(); err != nil {
		file.Close()
		return w.fail(fmt.Errorf("sync segment header: %w", err))
	}
	name := segmentName(w.dir, header.number)
	if err := w.fs.Rename(spare, name); err != nil {
		file.Close()
		return w.failUnlessNoSpace(noSpaceOr("rename spare segment", err))
	}
	w.spare.ready = false
	if err := w.syncDir(); err != nil {
		file.Close()
		return w.fail(err)
	}
	if w.file != nil {
		if err := w.seal(); err != nil {
			file.Close()
			return err
		}
		w.file.Close() // synced before; a close has nothing left to lose
		w.fullBytes.Add(w.header.bytes)
	}
	w.given = 0
	w.give(end - headerBytes)
	e.written()
	w.packer.reset()
	w.file, w.header, w.enc = file, header, e
	w.durable = e.number
	w.tail = end
	w.tailBytes.Store(w.tail)
	w.marked = false
	w.segments = append(w.segments, segment{number: header.number, bytes: header.bytes})
	w.wantReserve()
	return nil
}

// seal says at the end of the current segment that there is a next one: a log whose last segment is sealed has lost what was behind it.
// Nothing depends on the seal, so it is left out where there is no room for it.
func (w *WAL) seal() error {
	if w.tail+sealBytes > w.header.bytes {
		return nil
	}
	e := w.enc
	e.reserve(sealBytes)
	e.add(TypeReserved, w.durable, sealPayload)
	name := segmentName(w.dir, w.header.number)
	if _, err := w.file.WriteAt(e.pages(), w.tail-int64(len(w.enc.buf))); err != nil {
		if err = noSpaceOr("seal "+name, err); isNoSpace(err) {
			return nil
		}
		return w.fail(err)
	}
	if err := w.file.Sync(); err != nil {
		return w.fail(fmt.Errorf("sync %s: %w", name, err))
	}
	return nil
}

func (w *WAL) failUnlessNoSpace(err error) error {
	if isNoSpace(err) {
		return err
	}
	return w.fail(err)
}

// syncDir makes the names durable, under dirMu. A failure is sticky.
func (w *WAL) syncDir() error {
	if w.dirErr == nil {
		if err := w.fs.SyncDir(w.dir); err != nil {
			w.dirErr = fmt.Errorf("sync directory of the write-ahead log: %w", err)
		}
	}
	return w.dirErr
}
