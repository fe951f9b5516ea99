// Package netns gives tests hosts: network namespaces, each with a loopback, an
// address and a veth link to a switch, whose links can be cut, slowed down, and
// made to lose and reorder packets, each direction on its own.
//
// # Needs
//
// Linux, root (CAP_SYS_ADMIN and CAP_NET_ADMIN), iproute2's ip, and a kernel
// with network namespaces, veth and packet sockets. No netem, nftables, tc or
// bridge: the kernels of small virtual machines often lack them, and the faults
// would differ from machine to machine. New fails the test when something is
// missing, and says what; it never skips.
//
// # Data flow
//
// Every Net has a namespace of its own for the switch. A host's eth0 is one end
// of a veth pair, the other end lies there, with a packet socket on it. The
// forwarder reads IPv4 frames from each, finds the host by the destination
// address, applies the Fault of that direction, and writes the frame to the
// other host's end. ARP is off on all hosts and the forwarder puts the right
// address into each frame, so a link that is cut stays silent in the way of a
// broken route: connections hang, they are not refused. Frames keep their
// offloads (segmentation, checksums) through PACKET_VNET_HDR, so one frame may
// hold up to 64 KiB of a stream, and is lost or late as a whole.
//
// Nothing connects the hosts to the machine's network, and their addresses
// (10.0.0.1 and on) never meet any of it. A test reaches a host's servers from
// inside: Host.Dial, Host.Do, Host.Command.
//
// # Goroutines
//
// One reader for each host, owning its socket's reading side; one sender for
// each direction that ever had a delay, owning its queue. Close ends them. The
// fault and the counters of a direction are under its link's mutex.
//
// # Invariants
//
//  1. Frames of one direction keep their order unless its Fault says Reorder.
//  2. Once Set has returned, no frame is treated as before, but those that wait
//     for the end of a delay; they are lost if the direction is cut meanwhile.
//  3. Nothing is left behind: a Net removes its namespaces, and kills what
//     still runs in them, at the end of the test. Commands die with the test
//     process. Namespaces carry its PID in their names, and New removes those
//     of processes that are no more.
//
// # Limits
//
// 250 hosts, IPv4 only, 4096 frames waiting in a direction: more are dropped,
// as in any switch.
package netns
