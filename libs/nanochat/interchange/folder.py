"""Folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from nanochat.train.snapshot import sync
from nanochat.train.swap import exchange

ROOM = 16 << 20  # bytes for the files beside the weights: tokenizer, configuration, code


class Refused(ValueError):
    """The model cannot be exported or imported. The message says what is wrong, where, and what to do."""


def check_target(target: Path, *sources: Path, force: bool) -> None:
    """Raises Refused if `target` is a file, or a folder with content that `force` does not allow to replace; or that holds one of
    `sources`, which would be gone."""
    if target.exists() and not target.is_dir():
        raise Refused(f"{target} is a file: give the path of a folder")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise Refused(f"{target} is not empty: give another folder, or --force to replace it")
    if target.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise Refused(f"{target} holds the current directory: give a folder of its own")
    for source in sources:
        if source.resolve().is_relative_to(target.resolve()):
            raise Refused(f"{target} holds {source}, which is read: give a folder of its own")


@contextmanager
def appearing(target: Path, nbytes: int, *, force: bool = False) -> Iterator[Path]:
    """A draft beside `target` that takes its place at the end, or disappears after an exception. `nbytes` will be written.

    Raises Refused as `check_target`, and when the disk is too full.
    """
    check_target(target, force=force)
    target = target.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if free < nbytes + ROOM:
            raise Refused(_full(target, f"it needs {nbytes + ROOM:,} bytes, {free:,} are free"))
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as err:
        raise Refused(f"cannot write to {target.parent}: {err.strerror}") from err
    try:
        draft.chmod(0o755)  # mkdtemp makes a private folder, but a service of another account may read it
        yield draft
        for path in (*draft.rglob("*"), draft):
            sync(path)
        _replace(draft, target)
    except (OSError, SafetensorError) as err:
        # safetensors reports an error of the system as text.
        if (isinstance(err, OSError) and err.errno == errno.ENOSPC) or "os error 28" in str(err):
            raise Refused(_full(target, "the disk filled up while it was written")) from err
        raise Refused(f"cannot write {target}: {err}") from err
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # after an exchange, this is the old content


def _replace(draft: Path, target: Path) -> None:
    if target.is_dir() and any(target.iterdir()):
        if not exchange(draft, target):  # macOS and some network file systems; a kill between the two leaves the draft
            shutil.rmtree(target)
            draft.rename(target)
    else:
        os.replace(draft, target)  # an empty folder may be replaced


def _full(target: Path, why: str) -> str:
    return f"not enough space for {target}: {why}. Free some, or give a folder on another disk. Nothing was left behind"
