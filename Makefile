# One target per thing a developer does. `make test` is what the README names
# and the gate runs; the suites below it need the real programs, which are
# built once from the module proxy into .cache/peers.
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.shimVersion=$(VERSION)

.PHONY: build cross image test race lint conformance robustness e2e soak bench peers clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/shim ./cmd/shim

# Everything that ships compiles, tests included, on what clusters at the edge
# and developers run; and the binaries of the image are built, each below
# bin/image in the folder that is its root directory.
CROSS ?= linux/arm linux/386 linux/arm64 darwin/arm64
PLATFORMS ?= linux/amd64 linux/arm64 linux/arm/v7
cross:
	@for p in $(CROSS); do echo "vet $$p"; \
		GOOS=$${p%/*} GOARCH=$${p#*/} GOARM=7 CGO_ENABLED=0 $(GO) vet ./pkg/... ./cmd/... || exit 1; done
	@for p in $(PLATFORMS:/v7=v7); do echo "build $$p"; dir=bin/image/$$(echo $$p | tr / -)/usr/local/bin; \
		mkdir -p $$dir && ln -sf shim $$dir/etcd || exit 1; arch=$${p#*/}; \
		GOOS=$${p%/*} GOARCH=$${arch%v7} GOARM=7 CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $$dir/shim ./cmd/shim || exit 1; done

# The container image that takes the place of etcd's, of what cross has built.
# For one platform it is loaded into docker or podman, for several it becomes
# bin/image.tar in the OCI layout.
IMAGE ?= shim.local/etcd:dev
image:
	@$(MAKE) cross CROSS= PLATFORMS='$(PLATFORMS)'
	@hack/image.sh $(IMAGE) $$(echo $(PLATFORMS) | tr ' ' ,)

test:
	$(GO) test -timeout 20m ./...

race:
	$(GO) test -race ./pkg/... ./cmd/...

lint:
	@unformatted=$$(gofmt -l cmd internal pkg test); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags e2e ./test/e2e
	$(GO) vet -tags robustness ./test/robustness

# The scripts that must answer alike on etcd and shim, and upstream's own
# storage suite against a shim process.
conformance:
	$(GO) test -count=1 -timeout 20m ./test/conformance/...
	$(GO) run ./test/conformance/storage

# Members on hosts of their own, in network namespaces: partitions, kills, full
# disks and more, under load, some minutes. Needs root and the program ip.
# LONG=1 has faults at random befall one cluster after the other for half an
# hour; SEED=n, which the log tells, begins with the same ones again.
ROBUSTNESS := $(if $(LONG),-run '^TestClusterRandom$$' -timeout 60m -args -long 30m,-run '^TestCluster' -parallel 2 -timeout 20m -args) $(if $(SEED),-seed $(SEED))
robustness:
	$(GO) test -tags robustness -count=1 -v ./test/robustness $(ROBUSTNESS)

# A Kubernetes control plane on shim.
e2e:
	$(GO) test -tags e2e -count=1 -timeout 30m -v ./test/e2e

# An API server's load while all upkeep goes on beside it, checked against a
# model, and written into the README: about 11 minutes, or an hour more of
# the same with LONG=1. With SOAK=1m, or another time, phases are
# shorter, and latencies mean little: it checks that nothing is lost. Neither of
# those touches the README.
SOAK ?= 10m
soak:
	@mkdir -p bin
	$(GO) run ./test/soak -length $(SOAK) $(if $(LONG),-rounds 14) $(if $(filter-out 10m,$(SOAK)),-flat 2 -link 0) \
		$(if $(LONG)$(filter-out 10m,$(SOAK)),-json bin/soak.json,-json docs/soak.json -readme README.md)

# shim beside etcd, kine and the floor, about 14 minutes; writes what the
# README shows. QUICK=1 leaves out kine and what takes long: under three.
# ROWS=get,list is some of it. Neither of those touches the README.
ROWS ?=
ifdef QUICK
SERVERS ?= floor,etcd,shim
BENCH := -quick -json bin/bench.json
else
SERVERS ?= floor,etcd,kine,shim
BENCH := $(if $(ROWS),-json bin/bench.json,-json docs/bench.json -svg docs/bench.svg -readme README.md)
endif
bench:
	@mkdir -p bin
	$(GO) run ./test/bench -servers $(SERVERS) -rows '$(ROWS)' $(BENCH)

# Builds the real programs ahead of the tests that need them.
peers:
	$(GO) run ./test/internal/peers/build etcd etcdctl etcdutl etcd-3.5 etcd-3.6 kube-apiserver kube-controller-manager kube-scheduler kubectl kubeadm kindconfig kwok

clean:
	rm -rf bin
