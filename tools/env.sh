#!/usr/bin/env bash
# Makes .venv: the packages of requirements.lock and no others, a release build of rustbpe, and this project in place.
# Does nothing when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv
say() { printf '\033[2m· %s\033[0m\n' "$*" >&2; }
die() { printf 'cannot set up: %s\n' "$*" >&2; exit 1; }
uv_of() { command -v uv || echo "$1/bin/uv"; }
install_project() {
    VIRTUAL_ENV=$PWD/$venv "$1" pip install -q --no-deps --no-build-isolation -e .
    compile libs services
    printf '%s' "$version" > $version_stamp
}
# Where PYTHONDONTWRITEBYTECODE is set, each start would compile a thousand files of torch anew: 1.8 of 3.7 s.
compile() {
    [ -z "${PYTHONDONTWRITEBYTECODE:-}" ] || $venv/bin/python -m compileall -q -j 0 "$@" >/dev/null 2>&1 || true
}

python=""
for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || die "Python 3.11 or newer was not found; install it or set PYTHON=/path/to/python3"
command -v cc >/dev/null || die "no C compiler (cc) was found; install gcc or clang"

# Two stamps say what the environment was made from. When `made_from` differs, everything is installed again, which takes about a
# minute. When only the version differs (after a commit, a tag or the first edit since), the project's metadata is: two seconds.
stamp=$venv/.made-from
version_stamp=$venv/.version
version=$(git describe --tags --always --dirty 2>/dev/null || echo "no repository")
made_from=$({ cat pyproject.toml requirements.lock rustbpe/pyproject.toml rustbpe/Cargo.toml; find rustbpe/src rustbpe/python -name '*.rs' -o -name '*.py' -o -name '*.pyi' | LC_ALL=C sort | xargs cat; } | cksum)
if [ -x $venv/bin/python ] && [ "$(cat $stamp 2>/dev/null)" = "$made_from" ]; then
    if [ "$(cat $version_stamp 2>/dev/null)" != "$version" ]; then install_project "$(uv_of $venv)"; fi
    exit 0
fi

if [ ! -x $venv/bin/python ]; then
    say "creating $venv with $("$python" --version)"
    if command -v uv >/dev/null; then uv venv -q --python "$python" $venv; else "$python" -m venv $venv || die "$python cannot make virtual environments; install its venv module (Debian: python3-venv)"; fi
fi
uv=$(command -v uv || true)
if [ -z "$uv" ]; then
    [ -x $venv/bin/uv ] || { say "installing uv into $venv"; $venv/bin/python -m pip install -q --disable-pip-version-check uv; }
    uv=$venv/bin/uv
fi
export VIRTUAL_ENV=$PWD/$venv

export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
if ! command -v cargo >/dev/null; then
    say "Rust is missing: installing it with rustup into ${CARGO_HOME:-$HOME/.cargo} (about a minute)"
    command -v curl >/dev/null || die "curl is needed to install Rust; install curl, or Rust itself"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --profile minimal --no-modify-path \
        || die "rustup failed; install Rust by hand (https://rustup.rs) and run this again"
fi

say "installing the packages of requirements.lock"
# uv is in requirements.lock too, so the uv that was installed above stays.
"$uv" pip sync -q --require-hashes requirements.lock
compile $venv/lib
say "building rustbpe (release)"
"$uv" pip install -q --no-deps --no-build-isolation --reinstall-package rustbpe ./rustbpe
install_project "$uv"
printf '%s' "$made_from" > $stamp
say "environment ready"
