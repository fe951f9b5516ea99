package main

import (
	"log/slog"
	"net"
	"os"
)

// notifySystemd tells the service manager about a change of state, when there
// is one that asked to be told (sd_notify(3)).
func notifySystemd(log *slog.Logger, state string) {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return
	}
	if addr[0] == '@' { // an abstract socket
		addr = "\x00" + addr[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		log.Error("failed to notify systemd", "state", state, "error", err)
		return
	}
	defer c.Close()
	if _, err := c.Write([]byte(state)); err != nil {
		log.Error("failed to notify systemd", "state", state, "error", err)
	}
}
