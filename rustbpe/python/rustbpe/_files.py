"""Reads and writes tokenizer files: our own JSON and tiktoken's rank files. Nothing is pickled."""

import base64
import binascii
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FORMAT = "rustbpe-tokenizer"
VERSION = 1


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a temporary file next to `path`, sync it, rename it. `path` is always the whole old or the whole new file."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp creates private files, but other accounts must be able to read a tokenizer.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def checksum(tokens: Sequence[bytes], pattern: str, specials: Sequence[str]) -> str:
    """SHA-256 over the pattern, the special tokens and the tokens, each item preceded by its length."""
    digest = hashlib.sha256(f"{FORMAT} {VERSION}".encode())
    for group in ([pattern.encode()], [name.encode() for name in specials], tokens):
        digest.update(len(group).to_bytes(8, "little"))
        for item in group:
            digest.update(len(item).to_bytes(8, "little") + item)
    return digest.hexdigest()


def dump(tokens: Sequence[bytes], pattern: str, specials: Sequence[str]) -> bytes:
    """The JSON file. It has one line per token, so that two files can be compared line by line."""
    head = {
        "format": FORMAT,
        "version": VERSION,
        "sha256": checksum(tokens, pattern, specials),
        "pattern": pattern,
        "special_tokens": list(specials),
    }
    lines = ",\n".join(f'"{base64.b64encode(token).decode()}"' for token in tokens)
    text = json.dumps(head, indent=1, ensure_ascii=False)
    return f'{text[:-2]},\n "tokens": [\n{lines}\n ]\n}}\n'.encode()


def parse(path: str | Path) -> tuple[list[bytes], str, list[str]]:
    """Tokens, pattern and special tokens of a file that `dump` wrote.

    Raises ValueError, naming the file, if it is damaged or not such a file.
    """
    try:
        data: Any = json.loads(Path(path).read_bytes())
        if data["format"] != FORMAT or data["version"] != VERSION:
            raise ValueError(f"format {data['format']!r} version {data['version']!r}")
        tokens = [base64.b64decode(token, validate=True) for token in data["tokens"]]
        pattern, specials, expected = data["pattern"], data["special_tokens"], data["sha256"]
        found = checksum(tokens, pattern, specials)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ValueError(f"{path} is not a {FORMAT} file of version {VERSION}: {error}") from error
    if found != expected:
        raise ValueError(f"{path} is damaged: sha256 is {found}, the file says {expected}")
    return tokens, pattern, specials


def dump_tiktoken(tokens: Sequence[bytes]) -> bytes:
    """tiktoken's rank file: per line the token in base64, a space and its rank."""
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))
    return b"".join(lines)


def parse_tiktoken(path: str | Path) -> dict[bytes, int]:
    """The ranks in a tiktoken file. Raises ValueError, naming the first bad line."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            decoded = base64.b64decode(token, validate=True)
            value = int(rank)
        except ValueError as error:
            raise ValueError(f"{path} line {number} is not a token and its rank: {line[:80]!r}") from error
        if decoded in ranks:
            raise ValueError(f"{path} line {number}: token {decoded!r} is given twice")
        ranks[decoded] = value
    return ranks
