// Command build builds the named peers, so that a slow first build can be
// had apart from the tests that need it:
//
//	go run ./test/internal/peers/build etcd etcdctl etcdutl
package main

import (
	"fmt"
	"os"

	"github.com/kubeshim/shim/test/internal/peers"
)

func main() {
	for _, name := range os.Args[1:] {
		path, err := peers.Build(name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "build: %s: %v\n", name, err)
			os.Exit(1)
		}
		fmt.Println(path)
	}
}
