# Everything that people and CI do here. `make` alone lists the targets.
# The virtual environment is made inside the repository; the system's Python is only used to make it.

PYTHON ?= python3
BIN := .venv/bin
PY := $(BIN)/python
RUST := events/rust reflex reflex/screen arms/executor
ROOMS := events orchestrator arms/planner projections octo
RUST_SOURCES := $(shell find $(RUST) events/schemas -name target -prune -o -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.json' \) -print)
WORKERS ?= 4
# Where the debug build is that the tests run; `make coverage` has one of its own.
BUILD ?= target/debug

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-rust test-python nats-cli lint fmt coverage bench bench-executor bench-pipeline bench-reflex train-screen clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed: requirements.lock pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check "$$(grep -oE '^uv==[0-9.]+' requirements.lock)"
	$(BIN)/uv pip sync --quiet requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

setup: .venv/installed ## Make the virtual environment

target/release/octollm-executor: Cargo.lock Cargo.toml $(RUST_SOURCES)
	cargo build --locked --release --bins
	@touch $@

$(BUILD)/octollm-executor: Cargo.lock Cargo.toml $(RUST_SOURCES)
	cargo build --locked --bins
	@touch $@

# The quick build: a newcomer should not wait for the optimiser.
demo: .venv/installed $(BUILD)/octollm-executor ## Start everything, run nine tasks, check each against the log
	OCTO_BIN_DIR=$(abspath $(BUILD)) $(BIN)/octo demo

up: .venv/installed target/release/octollm-executor ## Start everything and keep it running
	$(BIN)/octo up

test: test-rust test-python ## Run every test

test-rust: .venv/installed
	cargo test --locked --workspace --all-features --quiet --no-fail-fast

# CI builds it, or fails; elsewhere Go may be missing, or its modules out of reach.
nats-cli:
	@tests/nats-cli || echo "the tests with the nats CLI are skipped" >&2

# The log as Rust writes it, for tests of both languages.
$(BUILD)/examples/log: Cargo.lock Cargo.toml $(RUST_SOURCES)
	cargo build --locked --workspace --all-features --example log
	@touch $@

test-python: .venv/installed $(BUILD)/octollm-executor $(BUILD)/examples/log nats-cli
	OCTO_BIN_DIR=$(abspath $(BUILD)) $(PY) -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term:skip-covered

lint: .venv/installed ## Check formats, types, lints, and that generated code follows the schemas
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(foreach room,$(ROOMS),$(room)/octollm) events/carriers.py tests bench
	$(PY) events/carriers.py --check
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings

fmt: .venv/installed ## Format everything
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --select I .
	cargo fmt

coverage: .venv/installed ## Run every test and tell the lines covered in both languages (needs llvm-profdata and llvm-cov of rustc's LLVM version)
	bench/coverage

bench: .venv/installed target/release/octollm-executor ## Measure start, latency and publishes per task
	$(PY) -m bench.stack
	$(PY) -m bench.task

# What is measured beside us; where something can't be installed the bench says so and measures the rest.
target/bench/peers/installed: .venv/installed requirements-bench.lock bench/peers/package.json bench/peers/package-lock.json
	@mkdir -p $(@D) && cp bench/peers/package.json bench/peers/package-lock.json $(@D)
	-$(BIN)/uv venv --quiet --allow-existing $(@D)/venv && $(BIN)/uv pip sync --quiet --python $(@D)/venv requirements-bench.lock
	-npm ci --prefix $(@D) --ignore-scripts --silent
	@test -x $(@D)/venv/bin/hypercorn && test -d $(@D)/node_modules && touch $@ || echo "not all peers could be installed"

bench-executor: .venv/installed ## Measure a step's start to finish beside fork and exec, and bubblewrap
	$(PY) -m bench.executor

bench-pipeline: .venv/installed target/release/octollm-executor target/bench/peers/installed ## Measure a task beside the bare broker, DBOS and Restate (QUICK=1: a minute)
	$(PY) -m bench.pipeline $(if $(QUICK),--quick)

bench-reflex: .venv/installed ## Measure the screen in process and reflex under load beside a bare handler (needs wrk; five minutes)
	cargo build --locked --release -p octollm-reflex --bins --examples
	$(PY) -m bench.reflex $(if $(QUICK),--seconds 5)

train-screen: .venv/installed ## Train the injection model again (OCTO_EVAL_DIR: folder of the dev data)
	$(PY) -m bench.screen.corpus
	$(PY) -m bench.screen.train

clean: ## Remove what was built and installed; data in .octo is kept
	cargo clean
	rm -rf .venv dist
