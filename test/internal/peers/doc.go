// Package peers builds the real programs that tests and benchmarks run shim
// beside: etcd and its tools, the Kubernetes control plane, kwok and kine.
//
// Each family of programs is a nested Go module below test/peers, so that none
// of its requirements reaches the main module. A nested module holds a go.mod
// that pins the version, the go.sum that makes a fresh clone build the same
// bytes, and a tools.go that imports the mains.
//
// Data flow: Path looks for .cache/peers/NAME in the root of the main module.
// The file NAME.stamp beside it holds a digest of what the binary was built
// from: go.mod, go.sum, the package path and the build flags. When the binary
// is missing or the digest differs, the program is built into a temporary file
// of the same folder and renamed into place, and the stamp is written last.
//
// Processes: go test runs packages in parallel, and two of them may need the
// same program. A build holds an exclusive flock on .cache/peers/FAMILY.lock
// for its whole length and looks again once it has it. The kernel drops the
// lock when its process dies, so nothing is ever left locked.
//
// Goroutines: none.
//
// Invariants: a path that is returned names a complete binary, because of the
// rename; a stamp never describes an older binary, because it is removed
// before the rename and written after it; nothing is skipped: a program that
// cannot be built fails the test that asks for it.
//
// Limits: the root is found from the working directory upwards, so callers
// run inside the main module, as go test does.
package peers
