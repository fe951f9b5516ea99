package vfs

const (
	// SectorBytes is the unit in which an unsynced write survives a crash of Mem or does not.
	SectorBytes = 512
	// zeroChunkBytes is how much one write call of the portable Preallocate writes.
	zeroChunkBytes = 1 << 20
)
