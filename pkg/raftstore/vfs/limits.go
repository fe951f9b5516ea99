package vfs

const (
	// SectorBytes is the unit in which an unsynced write survives a crash of Mem or does not, and the smallest of disks.
	SectorBytes = 512
	// DirectBytes is the largest block of files from OpenDirect: a page, and the largest sector of today's disks.
	DirectBytes = 4096
	// zeroChunkBytes is how much one write call of the portable Preallocate writes.
	zeroChunkBytes = 1 << 20
)
