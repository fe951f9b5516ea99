//go:build !linux

package main

// takeSlack is for kernels that have a timer slack.
func takeSlack() {}
