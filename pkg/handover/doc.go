// Package handover is the net.Listener of a server whose connections are
// accepted elsewhere: by who first looks at them and decides which of several
// servers on one port they are for.
package handover
