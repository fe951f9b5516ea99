//go:build tools

// Package tools pins kine, one of the servers that the benchmarks compare shim with.
package tools

import _ "github.com/k3s-io/kine"
