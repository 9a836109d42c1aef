# One line a target. Everything runs in .venv, which tools/env.sh makes from requirements.lock.
PY := .venv/bin/python
BIN := .venv/bin
.PHONY: help env hooks demo up down test test-gpu faults coverage lint fmt bench-tables lock

help:          ## list the targets
	@grep -hE '^[a-z%-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 18
env:           ## make or refresh .venv: pinned packages, a release build of rustbpe
	@tools/env.sh
hooks: env     ## check each commit before it is made: ruff, mypy, import walls
	@$(BIN)/pre-commit install
demo: env      ## train a chat model on this machine and talk to it (DATA=<folder of text>, SET=<overrides>, ONCE=1)
	@$(PY) -m services.standalone demo
up: env        ## run the whole stack on loopback, until Ctrl-C
	@$(PY) -m services.standalone up
down:          ## stop the stack that runs in another terminal
	@$(PY) -m services.standalone down
# Three workers, also on two cores: half of the tests wait for timers, leases and browsers.
test: env      ## run every test, with a Postgres and a Valkey of their own (ARGS=tests/api)
	@$(PY) -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)
test-gpu: env  ## run the tests that need a CUDA device
	@$(PY) -m pytest -q -m gpu $(ARGS)
faults: env    ## inflict faults on a real stack (FAULTS=n; default: as many as fit into five minutes; ARGS="--only disk")
	@$(PY) -m tests.faults.campaign $(if $(FAULTS),--count $(FAULTS),--seconds 270) $(ARGS)
coverage: env  ## run the tests and print the share of lines that they execute, in every process (ARGS=tests/api)
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)
	@$(BIN)/coverage combine -q && $(BIN)/coverage report
lint: env      ## check format, lint, types, import walls, Rust, container and Kubernetes files
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports && tools/lint_rust.sh && $(PY) -m pytest -q -m "not slow" tests/deploy
fmt: env       ## format, and fix what ruff can fix
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .
bench-%: env   ## measure control, curves, engine, eval, loader, rl, saving, serving, tokenizer or train (QUICK=1, RECORD=1, ARGS=--help)
	@$(PY) -m benchmarks.$* $(if $(filter 1,$(QUICK)),--quick) $(if $(filter 1,$(RECORD)),--record) $(ARGS)
bench-tables: env ## write the tables of docs/benchmarks.md and docs/curves.svg from benchmarks/results
	@$(PY) -m benchmarks.tables && $(PY) -m benchmarks.curves.plot
lock:          ## pin every package with its hashes in requirements.lock
	@PATH="$(CURDIR)/$(BIN):$$PATH" uv pip compile -q --universal --python-version 3.11 --all-extras --generate-hashes --no-header --no-annotate pyproject.toml -o requirements.lock
