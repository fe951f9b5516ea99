// Package migrate runs the pages of docs/ about replacing an etcd and going
// back. The commands are read out of the page itself, so a page cannot say what
// does not work.
//
// A page marks what is run by a comment in front of a block of commands:
// "run one" is for a cluster of one member; "run three first" and "run three
// each" for one of three, on the first host or on each in turn; "run three
// furthest" is on the host whose database has the highest revision; a word behind
// "one" names an alternative, which is run on a cluster of its own. A block with
// no mark sets the names that the commands go by, and each of them has a value
// of the test's.
//
// A host is a directory and an address of the loopback. systemctl, as the pages
// use it, is a stand-in in the PATH that starts and stops what the host's unit
// says; etcd, etcdctl and etcdutl are the real ones of 3.7.3.
//
// Limits: needs Linux (127.0.0.0/8), bash and sed.
package migrate
