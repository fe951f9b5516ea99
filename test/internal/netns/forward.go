package netns

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// A frame as a packet socket with PACKET_VNET_HDR has it:
//
//	 0  virtio_net_hdr: offloads  10 bytes
//	10  destination MAC            6
//	16  source MAC                 6
//	22  type                       2   0x0800: IPv4
//	24  IPv4 header, destination at 16 of it
const (
	offsetMAC         = 10
	offsetIP          = 24
	offsetDestination = offsetIP + 16
	frameMin          = offsetIP + 20
	frameMax          = 128 << 10

	receiveBuffer = 8 << 20
)

// openPort opens the switch's end of a link. It is called in the switch's
// namespace.
func openPort(name string) (*os.File, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	// Only IPv4 is asked for: a socket for all protocols would see what it writes itself.
	protocol := binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff}) // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: iface.Index})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind packet socket to %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// forward takes the frames of one host to where they go, until its port is
// closed.
func (n *Net) forward(from *Host) {
	frame := make([]byte, frameMax)
	for {
		size, err := from.port.Read(frame)
		if err != nil {
			return
		}
		if size < frameMin {
			continue
		}
		if l := n.route(from, [4]byte(frame[offsetDestination:])); l != nil {
			copy(frame[offsetMAC:], l.to.mac[:])
			l.send(frame[:size])
		}
	}
}

// route is the direction to an address, nil if nobody has it.
func (n *Net) route(from *Host, ip [4]byte) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	number := int(ip[3])
	if ip[0] != 10 || ip[1] != 0 || ip[2] != 0 || number < 1 || number > len(n.hosts) {
		return nil
	}
	return n.links[[2]*Host{from, n.hosts[number-1]}]
}
