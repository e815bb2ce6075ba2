SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# A key of the real market has no business in a build or a test.
unexport CLORE_API_KEY CLORE_API_KEY_FILE CLORE_API_URL
export RENTHOOK_RECORDINGS ?= $(abspath ../shared/data/clore)

BIN := $(CURDIR)/.bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
LDFLAGS := -s -w -X github.com/renthook/renthook/services/cmd/internal/cli.stamped=$(VERSION)
PACKAGES := ./pkg/... ./proto/... ./services/...
ARGS ?=
TESTFLAGS ?=

.PHONY: help
help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build the programs into .bin
	@echo "building (about two minutes with an empty cache) …"
	@mkdir -p $(BIN)
	@go build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./services/cmd/{renthook,ingress,order,pricewatch,notifier,watchdog,marketsim}

.PHONY: run
run: build ## Run everything in one process, with a simulated market
	@exec $(BIN)/renthook up $(ARGS)

.PHONY: test
test: ## Run the tests
	go test -shuffle=on -timeout 15m $(TESTFLAGS) $(PACKAGES)

# e2e is left out: it watches programs that it builds without the detector.
.PHONY: race
race: ## Run the tests with the race detector
	go test -race -shuffle=on -timeout 25m $(TESTFLAGS) $$(go list $(PACKAGES) | grep -v /services/e2e)

.PHONY: lint
lint: $(BIN)/golangci-lint $(BIN)/buf ## Vet, lint and check formats
	go vet $(PACKAGES)
	$(BIN)/golangci-lint run $(PACKAGES)
	PATH=$(BIN):$$PATH $(BIN)/buf lint
	PATH=$(BIN):$$PATH $(BIN)/buf format -d --exit-code

.PHONY: gen
gen: $(BIN)/buf ## Generate Go from proto
	PATH=$(BIN):$$PATH $(BIN)/buf generate

.PHONY: check
check: lint modules generated race vectors ## Everything CI checks beside the tests

.PHONY: modules
modules: ## Each module stands on its own
	@for m in pkg proto services; do echo "$$m alone"; GOWORK=off go -C $$m mod tidy -diff; GOWORK=off go -C $$m build ./...; done

.PHONY: generated
generated: gen ## Generated code is committed as generated
	@git diff --exit-code -- proto/gen
	@test -z "$$(git status --porcelain -- proto/gen)" || { git status --short -- proto/gen; echo "commit what make gen makes"; exit 1; }

.PHONY: vectors
vectors: ## Stock libraries of other languages verify our callbacks
	tools/vectors/run

.PHONY: rows
rows: ## Which test holds which failure, and the failures that none holds
	tools/rows/run

.PHONY: bench
bench: ## Print ratios and speeds, measured in one run
	GOWORK=off go -C tools/bench run .

.PHONY: chaos
chaos: build ## Kill every process in turn under load, and compare with the market's ledger
	go test -tags chaos -count=1 -timeout 20m -run TestChaos -v ./services/e2e

.PHONY: smoke
smoke: ## Start docker-compose.yml, rent once, kill, and compare with the market's ledger
	tools/smoke/run

.PHONY: soak
soak: ## Let three order processes contend for one account while they are killed and frozen
	go test -tags chaos -count=1 -timeout 60m -run TestSoak -v ./services/e2e

SEEDS ?= 1000

.PHONY: sim
sim: ## Simulate storms over the real order engine: make sim SEEDS=20000
	RENTHOOK_SEEDS=$(SEEDS) go test -count=1 -timeout 6h -run TestSim -v ./services/order/internal/engine

ONLY ?=

.PHONY: mutants
mutants: ## Break the order engine's rules one by one, and see that a test notices: make mutants ONLY=quiesce
	GOWORK=off nice go -C tools/mutants run . -root ../.. -only '$(ONLY)' -doc ../../docs/mutants.md

# A tool is built again only when the version its module asks for changes.
$(BIN)/buf: tools/buf/go.mod
	@echo "building buf (about six minutes with an empty cache) …"
	@mkdir -p $(BIN)
	GOWORK=off GOBIN=$(BIN) go -C tools/buf install tool
	@touch $@

$(BIN)/golangci-lint: tools/lint/go.mod
	@echo "building golangci-lint (about six minutes with an empty cache) …"
	@mkdir -p $(BIN)
	GOWORK=off GOBIN=$(BIN) go -C tools/lint install tool
	@touch $@

$(BIN)/docker-compose: tools/compose/go.mod
	@echo "building docker-compose (about three minutes with an empty cache) …"
	@mkdir -p $(BIN)
	GOWORK=off go -C tools/compose build -o $@ github.com/docker/compose/v2/cmd
	@touch $@
