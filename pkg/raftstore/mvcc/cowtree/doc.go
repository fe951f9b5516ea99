// Package cowtree is an ordered map kept as a B+tree that is copied on write
// and carries sums in its nodes.
//
// # Purpose
//
// The state machine needs an index of its keys which a single goroutine
// changes, which any number of goroutines read at the states they were handed
// (a View), and which answers "how many live keys are there from a to b" in
// O(log n). A tree with snapshots in O(1) and order statistics gives all
// three. The package knows nothing of keys, versions or revisions: it is
// given a comparison, a key of an item and a weight of an item.
//
// # Data flow
//
//	Set, Delete, Build ---> *Tree (one owner) ---Snapshot---> frozen *Tree (any reader)
//
// Items live in leaves only. An inner node holds for each child the smallest
// key in it, the sum of the weights in it, and the pointer to it. The keys in
// the nodes are those of the items the tree holds now: replacing an item
// replaces its key everywhere, so that a key which aliases the memory of an old
// item does not keep it alive.
//
// # Copy on write
//
// Every node carries the epoch of the tree it was made in. Snapshot hands out
// the root and raises the epoch of the original, which makes all nodes
// foreign: the next write copies the nodes on its path, once, and later writes
// of the same epoch change these copies in place. A batch of m writes between
// two snapshots therefore copies each node it touches once, not m times.
//
// # Goroutines
//
// The package starts none. A tree that is not frozen belongs to one goroutine,
// which may also call Snapshot. A frozen tree never changes and may be read by
// all; handing it over is the caller's synchronisation (an atomic pointer, a
// channel).
//
// # Invariants (verified by Check)
//
//  1. Keys ascend strictly through the whole tree.
//  2. Key i of an inner node is the smallest key of child i.
//  3. Sum i of an inner node is the sum of the weights of all items under
//     child i; a leaf keeps the weight of each item as it was when it was set.
//  4. All leaves are at the same depth; every node but the root has between
//     leafMin and leafMax items, or innerMin and innerMax children; an inner
//     root has at least two.
//  5. Slots beyond a node's length are zero, so that nothing dead is held.
//  6. No node has an epoch above its tree's; a node with a lower one is never
//     written again.
//
// # Limits
//
// A weight is between 0 and 1<<31-1 and is asked for once, when the item is
// set: an item whose weight or key changes later must be set again.
package cowtree
