"""How much code there is: the figures that nanochat's report calls bloat."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

from nanochat.report.card import Code

SUFFIXES = {".py", ".md", ".rs", ".html", ".css", ".toml", ".sh"}
PARTS = ("libs", "services", "rustbpe")  # of a checkout, without tests, documents and benchmarks
PACKAGE = Path(__file__).resolve().parents[1]


@cache
def measured(package: Path = PACKAGE) -> Code:
    """Count the sources of the checkout that `package` is in, otherwise those of the package alone."""
    root = package.parents[1]
    in_checkout = (root / "pyproject.toml").is_file() and (root / "libs").is_dir()
    roots = [root / part for part in PARTS if (root / part).is_dir()] if in_checkout else [package]
    texts = [path.read_text(encoding="utf-8", errors="replace") for folder in roots for path in _sources(folder)]
    characters, lock = sum(map(len, texts)), root / "requirements.lock"
    pinned = sum("==" in line for line in lock.read_text(encoding="utf-8").splitlines()) if lock.is_file() else None
    return Code(
        version=_version(),
        characters=characters,
        lines=sum(text.count("\n") for text in texts),
        files=len(texts),
        tokens=characters // 4,
        dependencies=pinned if in_checkout else None,
        of=", ".join(path.name for path in roots),
    )


def _sources(folder: Path) -> list[Path]:
    hidden = {"target", "__pycache__"}
    return [p for p in sorted(folder.rglob("*")) if p.suffix in SUFFIXES and p.is_file() and not hidden & set(p.parts)]


def _version() -> str:
    try:
        return metadata.version("nanochat-platform")
    except metadata.PackageNotFoundError:
        return "unknown"
