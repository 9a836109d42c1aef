"""Faults of the disk and of the files on it."""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil

from nanochat.contract.contract import EVENTS, MANIFEST
from tests.faults.campaign.case import Case
from tests.faults.campaign.stack import read_only, unmount


def full_disk(case: Case) -> None:
    case.reach()
    filler = case.stack.home / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError:
            pass
    case.stack.pause(case.random.uniform(1.0, 6.0))
    filler.unlink()
    case.retry()


def read_only_folder(case: Case) -> None:
    case.reach()
    folder = case.stack.home / "runs"
    read_only(folder)
    case.stack.pause(case.random.uniform(1.0, 6.0))
    unmount(folder)
    case.retry()


def read_only_home(case: Case) -> None:
    """Also where the worker keeps its own files."""
    case.reach()
    read_only(case.stack.home)
    case.stack.pause(case.random.uniform(1.0, 6.0))
    unmount(case.stack.home)
    case.retry()


def damage(how: Callable[[str], None]) -> Callable[[Case], None]:
    """Damage the newest checkpoint, then kill the training: its successor must do with an older one."""

    def act(case: Case) -> None:
        case.reach(45, 90)
        case.until(lambda: len(case.saved()) >= 2, "two checkpoints")
        rank = case.process("rank 0")
        rank.suspend()
        how(str(case.saved()[-1]))
        rank.kill()

    return act


def truncate(folder: str) -> None:
    os.truncate(f"{folder}/state.json", 100)


def overwrite_manifest(folder: str) -> None:
    with open(f"{folder}/{MANIFEST}", "w") as file:
        file.write('{"version": 1, "files": [')


def append(line: bytes) -> Callable[[Case], None]:
    def act(case: Case) -> None:
        case.reach()
        with (case.out() / EVENTS).open("ab", buffering=0) as file:
            file.write(line + b"\n")

    return act


def torn_line(case: Case) -> None:
    case.reach()
    rank, supervisor = case.process("rank 0"), case.process("supervisor")
    rank.suspend()
    # Until it stands still it may write behind the half line.
    case.until(lambda: rank.status() == psutil.STATUS_STOPPED, "the rank to stand still")
    with (case.out() / EVENTS).open("ab", buffering=0) as file:
        file.write(b'{"v": 1, "seq": 9')
    supervisor.kill()
