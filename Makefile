# Needs Go, gcc and make; nothing here asks for root or installs a package.
# 'make run' takes a fresh machine to a trained model, 'make test' tells whether the tree is sound.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unversioned)
FUZZTIME ?= 20s
COUNT    ?= 6
KILLS    ?= 50
TESTFLAGS ?=

# The S3 server of the tests, if it is there.
export HERD_VERSITYGW ?= $(wildcard $(CURDIR)/bin/versitygw)

BUILDFLAGS = -trimpath -ldflags '-X main.version=$(VERSION)'
BENCHED    = $(shell grep -rl --include='*_test.go' '^func Benchmark' . | xargs -r -n1 dirname | sort -u)

.DEFAULT_GOAL := help
.PHONY: help tools build run test race nocgo sanitize arm64 s3 lint fuzz bench crash golden proto proto-check dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tools: # says what to install if something is missing
	@GO='$(GO)' scripts/tools.sh

build: tools ## bin/trainer
	$(GO) build $(BUILDFLAGS) -o bin/trainer ./trainer

run: build ## train llama3-debug on Go's own source text, then print a sample; run it again to continue
	GO='$(GO)' scripts/demo.sh

test: tools ## every test, as a newcomer should see them pass
	$(GO) test $(TESTFLAGS) ./...

race: tools ## the tests under the race detector, in short mode
	$(GO) test -race -short $(TESTFLAGS) ./...

nocgo: tools ## build and test without C: the plain Go kernels, in short mode
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o /dev/null ./trainer
	CGO_ENABLED=0 $(GO) test -short $(TESTFLAGS) ./...

sanitize: tools ## the C kernels under AddressSanitizer and UndefinedBehaviorSanitizer
	GO='$(GO)' scripts/sanitize.sh

arm64: tools ## the tests of tensor/cpu on arm64, if gcc-aarch64-linux-gnu and qemu-user are there
	GO='$(GO)' scripts/arm64.sh

s3: tools ## bin/versitygw, an S3 server with which the tests of object stores run; some minutes the first time
	GOBIN='$(CURDIR)/bin' $(GO) install github.com/versity/versitygw/cmd/versitygw@v1.8.0

lint: build ## format, vet, staticcheck, architecture, modules, undefined symbols
	GO='$(GO)' scripts/lint.sh

fuzz: tools ## each fuzz target for FUZZTIME (20s)
	GO='$(GO)' scripts/fuzz.sh $(FUZZTIME)

bench: tools ## every benchmark COUNT (6) times, for benchstat
	$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) $(BENCHED)

crash: tools ## kill runs at KILLS (50) random moments and, above 10, at each call of the file system; each must end as if undisturbed
	$(GO) test ./trainer/run -run "Crash|KillAt" -count=1 -v -timeout 60m -args -crash.kills=$(KILLS)

golden: ## make the golden values again (Python with torch and transformers)
	scripts/golden/make.sh

proto: tools ## generate the Go of proto/ again (protoc)
	scripts/proto.sh

proto-check: proto ## the generated Go in the tree is what proto/ gives
	@test -z "$$(git status --porcelain proto)" || { git status --short proto; git diff proto; exit 1; }

dist: build ## dist/herd-VERSION-linux-amd64.tar.gz, with its glibc floor
	scripts/dist.sh $(VERSION)

clean: ## remove what the other targets made, except runs/
	rm -rf bin dist
