// Package wal is a segmented write-ahead log of opaque records.
package wal
