# One target per thing a developer does. `make test` is what the README names and the gate runs.
GO ?= go
BIN := bin/shim
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.shimVersion=$(VERSION)

.PHONY: build test race lint bench sim e2e conformance peers clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/shim

test:
	$(GO) test ./...

race:
	$(GO) test -race ./pkg/... ./cmd/...

lint:
	@test -z "$$(gofmt -l cmd pkg test hack 2>/dev/null | tee /dev/stderr)"
	$(GO) vet ./...

clean:
	rm -rf bin
