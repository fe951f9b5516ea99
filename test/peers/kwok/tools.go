//go:build tools

// Package tools pins kwok, which simulates the nodes of the end-to-end test.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
