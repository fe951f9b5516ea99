package cowtree

// Node sizes, chosen by measurement: see the table in doc.go.
const (
	leafMax  = 24           // items in a leaf at most
	leafMin  = leafMax / 4  // items in a leaf at least, the root aside
	innerMax = 24           // children of an inner node at most
	innerMin = innerMax / 4 // children of an inner node at least, the root aside

	// levelMax bounds the inner levels: 6 to the 16th leaves are enough.
	levelMax = 16

	buildLeaf  = leafMax * 7 / 8  // items Build puts into a leaf at most
	buildInner = innerMax * 7 / 8 // children Build puts into an inner node at most
)

// A split must leave both halves at or above the minimum, and two nodes of
// which one is below the minimum must either fit into one node or be enough
// for two.
const (
	_ = uint(leafMax + 1 - 2*leafMin)
	_ = uint(innerMax + 1 - 2*innerMin)
	_ = uint(buildLeaf - 2*leafMin)
	_ = uint(buildInner - 2*innerMin)
)
