# One line a target. Everything runs in .venv, which tools/env.sh makes from requirements.lock.
PY := .venv/bin/python
BIN := .venv/bin
.PHONY: help env demo up down test test-gpu lint fmt bench-tables lock

help:          ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 18
env:           ## the environment: pinned packages, release build of rustbpe
	@tools/env.sh
demo: env      ## train a chat model on this machine and talk to it (DATA=<parquet folder>, SET=<json overrides>, ONCE=1)
	@$(PY) -m services.standalone demo
up: env        ## the whole stack on loopback, until Ctrl-C
	@$(PY) -m services.standalone up
down:          ## stop a stack that runs in another terminal
	@$(PY) -m services.standalone down
test: env      ## every test; starts its own Postgres and Valkey
	@$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)
test-gpu: env  ## the tests that need a CUDA device
	@$(PY) -m pytest -q -m gpu $(ARGS)
lint: env      ## format, lint, types, import walls, Rust, containers
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports && tools/lint_rust.sh && $(PY) -m pytest -q tests/deploy
fmt: env       ## format and fix
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .
bench-%: env   ## bench-tokenizer, …: a table, then one line of JSON (QUICK=1, RECORD=1)
	@$(PY) -m benchmarks.$*
bench-tables: env ## the tables of docs/benchmarks.md, from benchmarks/results
	@$(PY) -m benchmarks.tables
lock:          ## pin every package with its hashes
	@uv pip compile -q --universal --python-version 3.11 --all-extras --generate-hashes --no-header --no-annotate pyproject.toml -o requirements.lock
