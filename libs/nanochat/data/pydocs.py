"""Collect the English prose that every machine with Python has: documentation of the standard library and of packages.

It comes from docstrings and long comments of .py files (read as text, never imported), the manual pages in `pydoc_data`, README
and manual files, and the descriptions in package metadata. The same installation always gives the same shards.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from nanochat.contract.contract import write_json
from nanochat.data.prose import paragraphs
from nanochat.data.shards import write_shard

VERSION = 1  # part of the cache key: raise it when the harvest or the cleaning changes
DOC_CHARS = (400, 4000)  # least and approximate greatest length of a document
SHARD_CHARS = 2_000_000
VAL_SHARE = 0.04

# A docstring follows nothing but comments, or a line that ends with a colon.
_BEFORE = re.compile(r"(?:\A(?:[ \t]*#[^\n]*\n|\s)*|:[ \t]*(?:#[^\n]*)?\n\s*)[rRuU]?\Z")
_COMMENTS = re.compile(r"#[^\n]*\n(?:[ \t]*#[^\n]*\n){2,}")
_HASH = re.compile(r"^[ \t]*#+:?", re.MULTILINE)

_TEXT_FILES = (".rst", ".md", ".txt")
_NOT_PROSE = re.compile(
    r"licen[cs]e|copying|notice|change|history|news|release|authors|credits|requirements|entry_points|top_level|record|sources|cmake",
    re.IGNORECASE,
)
_SKIPPED = re.compile(
    r"\..*|tests?|testing|idlelib|__pycache__|node_modules|licenses|_?vendor|vendored|site-packages|dist-packages"
)


def harvest(cache_dir: Path, max_chars: int, progress: Callable[[int], None] | None = None) -> tuple[list[Path], list[Path]]:
    """Return (train, val) shards with about `max_chars` characters in all, or fewer if the machine has less text.

    They are made once per installation and then reused. `progress` is called with the number of characters found so far.
    """
    home = cache_dir / "pydocs" / _key(max_chars)
    if not (home / "done").is_file():
        _write(home, _documents(max_chars, progress))
    paths = sorted(p.resolve() for p in home.glob("*.parquet"))
    return paths[:-1], paths[-1:]


def _key(max_chars: int) -> str:
    installed = sorted({f"{d.name}=={d.version}" for d in metadata.distributions()})
    return hashlib.blake2b(repr((VERSION, max_chars, sys.version, installed)).encode(), digest_size=8).hexdigest()


def _write(home: Path, documents: list[str]) -> None:
    """Write the shards into a temporary folder and rename it at the end. The last shard is the validation shard."""
    tmp = home.with_name(f"{home.name}.{os.getpid()}.tmp")
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir(parents=True)
    total = sum(map(len, documents))
    shards: list[list[str]] = [[]]
    filled = 0
    val_from = total * (1 - VAL_SHARE)
    done = 0
    for document in documents:
        starts_val = done < val_from <= done + len(document)
        if filled >= SHARD_CHARS or (starts_val and shards[-1]):
            shards.append([])
            filled = 0
        shards[-1].append(document)
        filled += len(document)
        done += len(document)
    for i, texts in enumerate(shards):
        write_shard(tmp / f"shard_{i:05d}.parquet", texts)
    write_json(tmp / "done", {"documents": len(documents), "chars": total})
    shutil.rmtree(home, ignore_errors=True)
    tmp.rename(home)


def _documents(max_chars: int, progress: Callable[[int], None] | None) -> list[str]:
    """Build documents from unique paragraphs. Sorting by digest mixes their origins in an order that never changes."""
    seen: set[int] = set()
    documents: list[str] = []
    chars = reported = 0
    for text in _sources():
        for document in _split(p for p in paragraphs(text) if _is_new(p, seen)):
            documents.append(document)
            chars += len(document)
        if progress and chars - reported > 200_000:
            progress(chars)
            reported = chars
        if chars >= max_chars:
            break
    documents.sort(key=lambda d: hashlib.blake2b(d.encode(), digest_size=8).digest())
    return documents


def _is_new(paragraph: str, seen: set[int]) -> bool:
    digest = int.from_bytes(hashlib.blake2b(paragraph.casefold().encode(), digest_size=8).digest(), "little")
    if digest in seen:
        return False
    seen.add(digest)
    return True


def _split(pieces: Iterator[str]) -> Iterator[str]:
    """Join paragraphs into documents. A remainder that is too short for a document is dropped."""
    least, most = DOC_CHARS
    held: list[str] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece) + 2
        if size >= most:
            yield "\n\n".join(held)
            held, size = [], 0
    if size >= least:
        yield "\n\n".join(held)


# -- finding the text --


def _sources() -> Iterator[str]:
    """Yield the raw texts of the manual pages, then of the standard library, then of the packages by name."""
    paths = sysconfig.get_paths()
    stdlib = Path(paths["stdlib"])
    yield from _topics(stdlib / "pydoc_data" / "topics.py")
    yield from _tree(stdlib)
    for root in sorted({Path(paths["purelib"]), Path(paths["platlib"])}):
        yield from _tree(root)


def _tree(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not _SKIPPED.fullmatch(f))
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith(".py") and not name.startswith("test"):
                yield from _python(_read(path))
            elif name == "METADATA":
                yield _read(path).partition("\n\n")[2]
            elif name.endswith(_TEXT_FILES) and not _NOT_PROSE.search(name):
                yield _read(path)


def _python(source: str) -> Iterator[str]:
    """Yield all docstrings of a file as one text, then all long comments as another."""
    docstrings: list[str] = []
    comments: list[str] = []
    end = 0
    for start, stop in _strings(source):
        lead = max(end, start - 400) if end else 0
        before = source[lead:start] if lead == 0 else "\0" + source[lead:start]  # "\0" marks: not the start of the file
        if stop - start > 80 and _BEFORE.search(before):
            docstrings.append(_dedented(source[start + 3 : stop - 3]))
        comments.extend(m[0] for m in _COMMENTS.finditer(source, end, start))
        end = stop
    comments.extend(m[0] for m in _COMMENTS.finditer(source, end))
    if docstrings:
        yield "\n\n".join(docstrings)
    if comments:
        yield _HASH.sub("", "\n\n".join(comments))


def _strings(source: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of every triple-quoted string, quotes included.

    None may be missed: after a missed one, the following strings would be taken for code. `str.find` scans source an order of
    magnitude faster than a regular expression or a tokenizer.
    """
    position = 0
    following = {quote: source.find(quote) for quote in ('"""', "'''")}
    while True:
        for quote, at in following.items():
            if -1 < at < position:
                following[quote] = source.find(quote, position)
        found = [(at, quote) for quote, at in following.items() if at >= 0]
        if not found:
            return
        start, quote = min(found)
        stop = source.find(quote, start + 3)
        while stop > 0 and source[stop - 1] == "\\":
            stop = source.find(quote, stop + 1)
        if stop < 0:
            return
        position = stop + 3
        yield start, position


def _dedented(docstring: str) -> str:
    """Remove the common indentation of all lines but the first, which follows the quotes and has none."""
    first, _, others = docstring.partition("\n")
    indents = [len(line) - len(line.lstrip()) for line in others.split("\n") if line.strip()]
    margin = min(indents, default=0)
    return "\n".join([first.strip(), *(line[margin:] for line in others.split("\n"))])


def _topics(path: Path) -> Iterator[str]:
    """Yield the texts of the language reference shown by `help()`, a module that consists of one dict of strings."""
    import ast

    if not path.is_file():
        return
    for node in ast.walk(ast.parse(_read(path))):
        if isinstance(node, ast.Dict):
            for value in node.values:
                text = ast.literal_eval(value)
                if isinstance(text, str):
                    yield text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
