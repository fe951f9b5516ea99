// Package vfs is the small seam between the write-ahead log and a file system.
//
// # Purpose
//
// The log needs about a dozen file calls. They stand here as two interfaces, FS and File, with three users behind them:
//
//   - OS: the real file system. File.Sync is fdatasync where the kernel has it, Preallocate is fallocate, and where either
//     is missing a portable form with the same promise (fsync; writing zeros) takes its place. OpenDirect is O_DIRECT on Linux,
//     and an ordinary file elsewhere or where the file system refuses it; the alignment is asked for in all cases.
//   - Mem: a full twin in memory which knows what is durable and what is not. Mem.Crash gives the file system that a power
//     cut would leave.
//   - Hooked: a wrapper around any FS whose hooks see each call before it (to fail it, cut it short, or block it) and after
//     it (to record it). FailNth, SpaceBudget and Recorder are such hooks.
//
// # What is durable
//
// The promises Mem enforces, and on which the log relies, are these and no more:
//
//  1. File.Sync makes the contents and the size of that file durable. It does not make its name durable.
//  2. FS.SyncDir makes durable every name created, renamed or removed directly in that directory before the call.
//  3. A rename within one directory is atomic: after a crash either all of it or nothing of it has happened.
//  4. What was not made durable may survive a crash or not, each name on its own and each 512-byte sector of a file on its
//     own. A sector is never a mixture: it holds its contents at some moment between the last Sync and the crash.
//
// # Goroutines
//
// The package starts none. All implementations may be called from several goroutines.
package vfs
