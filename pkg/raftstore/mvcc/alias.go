package mvcc

import "unsafe"

// aliasString is a string over bytes that never change.
func aliasString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
