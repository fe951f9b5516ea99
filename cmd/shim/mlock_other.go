//go:build !linux

package main

import "errors"

// lockMemory is --memory-mlock.
func lockMemory() error { return errors.New("--memory-mlock: memory is locked on Linux only") }
