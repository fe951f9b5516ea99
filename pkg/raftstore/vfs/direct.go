package vfs

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

// DirectFlag is what files of the system are opened with, in addition, to be read and written as those of OpenDirect; 0 where that is not
// known. A file system that does not know it answers EINVAL.
const DirectFlag = openDirectFlag

// AlignedBuffer gives an empty slice with a capacity of size bytes, rounded up to DirectBytes, whose first byte is aligned for
// OpenDirect's files. It stays so: the garbage collector moves nothing that is on the heap.
func AlignedBuffer(size int) []byte {
	size = (size + DirectBytes - 1) / DirectBytes * DirectBytes
	b := make([]byte, size+DirectBytes)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (DirectBytes - 1)
	return b[skip : skip : skip+size]
}

// aligned tells whether a file from OpenDirect with such blocks takes p at an offset.
func aligned(p []byte, off, block int64) bool {
	address := int64(uintptr(unsafe.Pointer(unsafe.SliceData(p))) % DirectBytes)
	return (off|int64(len(p))|address)%block == 0
}

// directFile is a file of OS from OpenDirect.
type directFile struct {
	osFile
	block int64
}

// Block is what the file system said when the file was opened.
func (f directFile) Block() int64 { return f.block }

func (osFS) OpenDirect(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|openDirectFlag, fileMode)
	if errors.Is(err, syscall.EINVAL) { // the file system does not know the flag
		f, err = os.OpenFile(name, os.O_RDWR, fileMode)
	}
	if err != nil {
		return nil, err
	}
	block := directBlock(f)
	if block < SectorBytes || DirectBytes%block != 0 { // it does not say, or says something odd
		block = DirectBytes
	}
	return directFile{osFile{f}, block}, nil
}

func (f directFile) ReadAt(p []byte, off int64) (int, error) {
	if !aligned(p, off, f.block) {
		return 0, &os.PathError{Op: "read", Path: f.Name(), Err: syscall.EINVAL}
	}
	n, err := f.osFile.ReadAt(p, off)
	if errors.Is(err, syscall.EINVAL) && setBuffered(f.File) == nil {
		return f.osFile.ReadAt(p, off)
	}
	return n, err
}

// WriteAt goes on through the page cache from the first write that is refused although it is aligned: a file system may take
// the flag and not the write, and one that ends short may leave a rest that is not aligned.
func (f directFile) WriteAt(p []byte, off int64) (int, error) {
	if !aligned(p, off, f.block) {
		return 0, &os.PathError{Op: "write", Path: f.Name(), Err: syscall.EINVAL}
	}
	n, err := f.osFile.WriteAt(p, off)
	if errors.Is(err, syscall.EINVAL) && setBuffered(f.File) == nil {
		var rest int
		rest, err = f.osFile.WriteAt(p[n:], off+int64(n))
		n += rest
	}
	return n, err
}
