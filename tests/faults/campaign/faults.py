"""The table of faults. A fault acts on a run that trains; it undoes what it did where a person or an orchestrator would."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from controlplane.lifecycle import RunStatus
from tests.faults.campaign.case import Case
from tests.faults.campaign.processes import (
    cancel,
    cancel_while_cut_off,
    drain,
    freeze_parent,
    freeze_ranks,
    freeze_worker,
    half_written,
    kill,
    kill_everything,
    kill_node,
    kill_service,
    kill_twice,
    kill_worker,
    kill_worker_and_all,
    pause_and_resume,
    term_while_saving,
    terminate,
    two_apis,
)
from tests.faults.campaign.stack import SERVICES
from tests.faults.campaign.storage import (
    append,
    damage,
    full_disk,
    overwrite_manifest,
    read_only_folder,
    read_only_home,
    torn_line,
    truncate,
)
from tests.faults.campaign.surroundings import (
    call_not_sent,
    clock,
    duplicates,
    duplicates_at_the_start,
    flapping,
    flush,
    flush_queued,
    freeze_postgres,
    garbage,
    kill_backend,
    network,
    resurrected,
    server,
)
from tests.faults.campaign.trainer import Plan

QUIET = Plan()
LONG = Plan(steps=600, save_every=50)  # trains for about ten seconds, longer than a lease
SLOW_SAVE = Plan(slow_save=60)
DEAF = Plan(steps=600, save_every=50, ignore_stop=True)

ONE = ("api", "worker")
TWO_WORKERS = ("api", "worker", "worker-2")
TWO_NODES = ("api", "node-1", "node-2")
TOGETHER = Plan(together=True, steps=200, save_every=20)
TWO_APIS = ("api", "api-2", "worker")


@dataclass(frozen=True)
class Fault:
    """`attempts` is how many the run may take: one where training must not notice."""

    name: str
    act: Callable[[Case], object]
    plan: Plan = QUIET
    services: tuple[str, ...] = ONE
    ends: RunStatus = RunStatus.SUCCEEDED
    attempts: int | None = None
    needs: Literal["", "mount", "clock"] = ""  # what the machine must let us do
    restarts: bool = True  # whether a service may die of it


def nothing(case: Case) -> None:
    """No fault, or one that the trainer itself makes, see Plan."""


_GARBAGE_LINE = b'{"v": 1, "seq": 7, \xff\xfe nonsense'
_NUL_LINE = json.dumps({"v": 1, "kind": "log"}).encode()

FAULTS: tuple[Fault, ...] = (
    Fault("no fault", nothing, attempts=1, restarts=False),
    Fault("kill -9 rank 0", kill("rank 0"), restarts=False),
    Fault("kill -9 rank 1", kill("rank 1"), restarts=False),
    Fault("kill -9 torchrun", kill("torchrun"), restarts=False),
    Fault("kill -9 the supervisor", kill("supervisor"), restarts=False),
    Fault("kill -9 the worker's parent process", kill_worker),
    Fault("kill -9 the worker and all its processes", kill_worker_and_all),
    Fault("kill -9 the worker, another one waits", kill_worker_and_all, services=TWO_WORKERS),
    Fault("kill -9 rank 0, then torchrun of the next attempt", kill_twice, restarts=False),
    Fault("kill -9 the API", kill_service("api"), attempts=1),
    Fault("two APIs on one database", nothing, services=TWO_APIS, attempts=1, restarts=False),
    Fault("kill -9 one of two APIs, freeze the other", two_apis, services=TWO_APIS, attempts=1),
    Fault("kill -9 Postgres", server("postgres", kill=True), attempts=1),
    Fault("kill -9 a connection's process of Postgres", kill_backend, attempts=1, restarts=False),
    Fault("kill -9 Valkey", server("valkey", kill=True), attempts=1),
    Fault("kill -9 the whole stack", kill_everything),
    Fault("two machines train one stage", nothing, TOGETHER, TWO_NODES, attempts=1, restarts=False),
    Fault("kill -9 the worker that leads two machines", kill_node(leader=True), TOGETHER, TWO_NODES),
    Fault("kill -9 the other worker of two machines", kill_node(leader=False), TOGETHER, TWO_NODES),
    Fault("SIGTERM to a rank", terminate("rank 0"), restarts=False),
    Fault("SIGTERM to torchrun", terminate("torchrun"), restarts=False),
    Fault("SIGTERM to the worker", drain),
    Fault("SIGSTOP of the ranks for seconds", freeze_ranks, attempts=1, restarts=False),
    Fault("SIGSTOP of the worker's parent beyond its lease", freeze_parent, LONG, attempts=1, restarts=False),
    Fault("SIGSTOP of a worker beyond its lease", freeze_worker(training=False), LONG, TWO_WORKERS),
    Fault(
        "SIGSTOP of a worker beyond its lease, training goes on",
        freeze_worker(training=True),
        LONG,
        TWO_WORKERS,
    ),
    Fault("restart of Postgres", server("postgres"), attempts=1, restarts=False),
    Fault("Postgres away for seconds", server("postgres", away=True), LONG, attempts=1, restarts=False),
    Fault("SIGSTOP of Postgres for seconds", freeze_postgres, attempts=1, restarts=False),
    Fault("restart of Valkey", server("valkey"), attempts=1, restarts=False),
    Fault("Valkey away for seconds", server("valkey", away=True), attempts=1, restarts=False),
    Fault("FLUSHALL", flush, attempts=1, restarts=False),
    Fault("FLUSHALL while the stage is queued", flush_queued),
    Fault("worker cut off from Postgres", network("worker", "postgres", "cut"), attempts=1, restarts=False),
    Fault("worker cut off from Postgres beyond its lease", network("worker", "postgres", "cut", long=True), LONG, TWO_WORKERS),
    Fault("worker's connection to Postgres hangs", network("worker", "postgres", "hang"), attempts=1, restarts=False),
    Fault(
        "worker's connection to Postgres hangs beyond its lease",
        network("worker", "postgres", "hang", long=True),
        LONG,
        TWO_WORKERS,
    ),
    Fault("worker's connection to Postgres flaps", flapping, restarts=False),
    Fault("worker cut off from Valkey", network("worker", "valkey", "cut"), attempts=1, restarts=False),
    Fault("worker's connection to Valkey hangs", network("worker", "valkey", "hang", long=True), attempts=1, restarts=False),
    Fault("API cut off from Postgres", network("api", "postgres", "cut", long=True), attempts=1, restarts=False),
    Fault("API cut off from Valkey", network("api", "valkey", "cut", long=True), attempts=1, restarts=False),
    Fault("API cut off from Valkey while the stage is queued", call_not_sent, restarts=False),
    Fault("five copies of the call while it runs", duplicates, attempts=1, restarts=False),
    Fault("five copies of the call at once", duplicates_at_the_start, services=TWO_WORKERS, attempts=1, restarts=False),
    Fault("the call of a finished stage comes back", resurrected, attempts=1, restarts=False),
    Fault("garbage in the queue", garbage, attempts=1, restarts=False),
    Fault("full disk", full_disk, LONG, needs="mount"),
    Fault("read-only run folder", read_only_folder, LONG, needs="mount"),
    Fault("read-only home", read_only_home, LONG, needs="mount"),
    Fault("kill -9 with a half-written checkpoint", half_written, SLOW_SAVE, restarts=False),
    Fault("truncated checkpoint", damage(truncate), restarts=False),
    Fault("corrupted manifest of a checkpoint", damage(overwrite_manifest), restarts=False),
    Fault("checkpoint gone", damage(shutil.rmtree), restarts=False),
    Fault("corrupted line in the spool", append(_GARBAGE_LINE), attempts=1, restarts=False),
    Fault("half a line at the end of the spool, then kill -9 the supervisor", torn_line, restarts=False),
    Fault("event without a number or a time in the spool", append(_NUL_LINE), attempts=1, restarts=False),
    Fault("event with an impossible time", nothing, Plan(strange_time_at=30), attempts=1, restarts=False),
    Fault("200,000 empty log lines", nothing, Plan(lines_at=30), attempts=1, restarts=False),
    Fault("a line of 20 MB and bytes that are no text in the log", nothing, Plan(noise_at=30), attempts=1, restarts=False),
    Fault("SIGTERM to torchrun during a checkpoint", term_while_saving("torchrun"), SLOW_SAVE, restarts=False),
    Fault("SIGTERM to a rank during a checkpoint", term_while_saving("rank 0"), SLOW_SAVE, restarts=False),
    Fault("SIGTERM to the worker during a checkpoint", term_while_saving("worker"), SLOW_SAVE),
    Fault("SIGTERM to the worker, the trainer ignores the stop file", drain, DEAF),
    Fault("cancel, the trainer ignores the stop file", cancel, DEAF, ends=RunStatus.CANCELLED, restarts=False),
    Fault("cancel", cancel, LONG, ends=RunStatus.CANCELLED, attempts=1, restarts=False),
    Fault("cancel while the worker is cut off", cancel_while_cut_off, LONG, ends=RunStatus.CANCELLED, restarts=False),
    Fault("pause and resume", pause_and_resume, LONG, attempts=2, restarts=False),
    Fault(
        "the clock of the worker and its training jumps by an hour",
        clock("worker"),
        LONG,
        attempts=1,
        needs="clock",
        restarts=False,
    ),
    Fault("the clock of the API jumps by an hour", clock("api"), LONG, attempts=1, needs="clock", restarts=False),
    Fault("the clock of Postgres jumps by an hour", clock("postgres"), LONG, attempts=1, needs="clock", restarts=False),
    Fault(
        "the clock of the whole machine jumps by an hour",
        clock(*SERVICES, "postgres"),
        LONG,
        attempts=1,
        needs="clock",
        restarts=False,
    ),
)
