#!/usr/bin/env bash
# Checks the Rust crate: format, lint, unit tests.
set -euo pipefail
cd "$(dirname "$0")/../rustbpe"
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH" PYO3_PYTHON="$PWD/../.venv/bin/python"
cargo fmt --check
if cargo clippy --version >/dev/null 2>&1; then cargo clippy -q --all-targets -- -D warnings; else echo "clippy is not installed: skipped" >&2; fi
cargo test -q
