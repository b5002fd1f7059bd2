.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONSAFEPATH := 1
export CORPUSMILL_HOME ?= $(CURDIR)/.corpusmill
export CORPUSMILL_SHARED_DATA ?= $(abspath $(CURDIR)/../shared/data)
READY := $(VENV)/.ready

##@ For everybody
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo

env: $(READY) ## Make .venv with everything but the peers' environments (about 5 minutes)

demo: $(READY) ## Both bundled crawls through the demo recipe in Airflow, to a published corpus
	@$(BIN)/python -m corpusmill_operators.local demo

up: $(READY) ## The Airflow UI on the same state, in the foreground; Ctrl-C stops it
	@$(BIN)/python -m corpusmill_operators.local up

##@ For developers
test: $(READY) ## All tests that need no GPU
	$(BIN)/pytest -q $(ARGS)

check: $(READY) lint types arch test ## Lint, types, import rules, tests: what CI runs

lint: $(READY) ## Formatting and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell src operators dags plugins docs README.md CONTRIBUTING.md CHANGELOG.md

types: $(READY) ## Types
	$(BIN)/mypy

arch: $(READY) ## Import rules
	$(BIN)/lint-imports

FILES ?= $(wildcard $(CORPUSMILL_SHARED_DATA)/../conformance/*.jsonl)
conformance: $(READY) ## Run conformance files: make conformance FILES="a.jsonl b.jsonl"
	@$(BIN)/python -m corpusmill.conformance $(FILES)

rehearse: $(READY) ## The Celery cluster of docker/compose.yaml as local processes; one worker is killed
	@$(BIN)/pip install -q -c constraints.txt -e '.[dev,celery]'
	@PYTHONPATH=$(CURDIR)/docker $(BIN)/python -m rehearsal

reference: $(READY) ## Regenerate docs/reference
	@$(BIN)/python -m corpusmill.reference docs/reference

bench: $(READY) ## One benchmark: make bench BENCH=refining ARGS="--quick"
	@PYTHONPATH=$(CURDIR)/benchmarks $(BIN)/python benchmarks/$(BENCH).py $(ARGS)

peers: ## The peers' environment (datatrove), for the parity test against the real thing
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install -q -r benchmarks/peers.txt

clean: ## Remove the demo's state (.corpusmill); the environment stays
	rm -rf $(CORPUSMILL_HOME)

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: help env demo up test check lint types arch conformance rehearse reference bench peers clean
