package conformance

import (
	"os"
	"os/signal"
	"strings"
	"testing"

	"github.com/kubeshim/shim/test/internal/peers"
)

func TestMain(m *testing.M) {
	for _, v := range peers.EtcdctlPatience {
		name, value, _ := strings.Cut(v, "=")
		_ = os.Setenv(name, value)
	}
	if signal.Ignored(os.Interrupt) { // by who runs the tests: an etcdctl would inherit that
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	}
	os.Exit(m.Run())
}
