package vfs

import (
	"math/rand/v2"
	"path"
)

// Unsynced is one thing that a crash may keep or lose.
type Unsynced struct {
	Path   string // file, or for a change of names the name that is created, removed or renamed to
	Name   bool   // a change of names in a directory
	Resize bool   // a change of a file's size
	Offset int64  // of the sector, or the new size
}

// LoseAll is the crash right after which nothing unsynced is left.
func LoseAll(Unsynced) bool { return false }

// KeepAll is the end of the process, not of the machine: everything written is there.
func KeepAll(Unsynced) bool { return true }

// Seeded decides each question by a generator with this seed. The share that is kept differs from seed to seed, so that
// nearly everything and nearly nothing come up as well.
func Seeded(seed uint64) func(Unsynced) bool {
	r := rand.New(rand.NewPCG(seed, 0x766673))
	share := r.Float64()
	return func(Unsynced) bool { return r.Float64() < share }
}

// Crash gives the file system which a crash at this moment could leave: everything durable, and of the rest what keep says
// it keeps, asked name by name and sector by sector in the order of the writes. A sector keeps its contents as of the last
// write of it that was kept. The file system itself and its open files are left as they are; locks do not survive.
func (m *Mem) Crash(keep func(Unsynced) bool) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	left := map[string]*memNode{}
	for name, n := range m.durable {
		left[name] = n
	}
	for _, op := range m.pending {
		if keep(Unsynced{Path: op.name, Name: true}) {
			op.applyTo(left)
		}
	}
	after := &Mem{
		names: map[string]*memNode{}, durable: map[string]*memNode{},
		locks: map[string]bool{}, capacity: m.capacity,
	}
	for name, n := range left {
		c := &memNode{dir: n.dir}
		if !n.dir {
			c.data = n.crashed(name, keep)
			c.synced = append([]byte{}, c.data...)
		}
		after.names[name], after.durable[name] = c, c
	}
	return after
}

// crashed is the contents a crash leaves. The image is what the page cache held after each operation; the sectors that are
// kept are copied from it.
func (n *memNode) crashed(name string, keep func(Unsynced) bool) []byte {
	image := append([]byte{}, n.synced...)
	left := append([]byte{}, n.synced...)
	for _, op := range n.pending {
		image = op.applyTo(image)
		if op.data == nil {
			if keep(Unsynced{Path: name, Resize: true, Offset: op.offset}) {
				left = resized(left, op.offset)
			}
			continue
		}
		end := op.offset + int64(len(op.data))
		for at := op.offset / SectorBytes * SectorBytes; at < end; at += SectorBytes {
			if !keep(Unsynced{Path: name, Offset: at}) {
				continue
			}
			to := min(at+SectorBytes, int64(len(image)))
			if to > int64(len(left)) {
				left = resized(left, to)
			}
			copy(left[at:to], image[at:to])
		}
	}
	return left
}

// ForgetDirty makes of a file what an fsync that failed leaves on Linux: the writes since the last Sync are still seen, but
// the kernel takes them for written, and no later Sync writes them.
func (m *Mem) ForgetDirty(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.names[path.Clean(name)]; n != nil {
		n.pending = nil
	}
}

// Clone is the file system with everything in it, durable or not, as if nothing had happened; for tests that damage a copy.
func (m *Mem) Clone() *Mem { return m.Crash(KeepAll) }
