//go:build tools

// Package tools pins etcd 3.6, the server of the release before the one that shim stands in for. See test/internal/peers.
package tools

import (
	_ "go.etcd.io/etcd/server/v3"
)
