"""The table of faults. A fault acts on a run that trains; it undoes what it did where a person or an orchestrator would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis
from sqlalchemy import select, update

from controlplane import runs
from controlplane.lifecycle import Desired, RunStatus
from controlplane.models import Attempt, Run
from nanochat.contract.contract import EVENTS, MANIFEST
from tests.faults.campaign.case import Case, send
from tests.faults.campaign.stack import read_only, unmount
from tests.faults.campaign.trainer import SAVING, Plan

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
    """`attempts` is how many the run may take: one where training must not notice. `known` says why it fails today."""

    name: str
    act: Callable[[Case], object]
    plan: Plan = QUIET
    services: tuple[str, ...] = ONE
    ends: RunStatus = RunStatus.SUCCEEDED
    attempts: int | None = None
    needs_mount: bool = False
    restarts: bool = True  # whether a service may die of it
    known: str = ""


# -- processes die --


def kill(kind: str) -> Callable[[Case], None]:
    def act(case: Case) -> None:
        case.reach()
        send([case.process(kind)], signal.SIGKILL)

    return act


def kill_worker(case: Case) -> None:
    case.reach()
    service = case.service()
    assert service.process is not None
    service.process.kill()


def kill_worker_and_all(case: Case) -> None:
    case.reach()
    send(case.service().tree(), signal.SIGKILL)


def kill_node(*, leader: bool) -> Callable[[Case], None]:
    """kill -9 of one of the two workers that train one stage together."""

    def act(case: Case) -> None:
        case.reach(25, 90)
        leading = case.service()
        other = next(case.stack.services[name] for name in ("node-1", "node-2") if name != leading.name)
        send((leading if leader else other).tree(), signal.SIGKILL)

    return act


def kill_service(name: str) -> Callable[[Case], None]:
    def act(case: Case) -> None:
        case.reach()
        send(case.stack.services[name].tree(), signal.SIGKILL)

    return act


def kill_twice(case: Case) -> None:
    kill("rank 0")(case)
    case.until(lambda: len(case.attempts()) == 2, "the second attempt")
    case.until(lambda: case.step() > 5, "the second attempt to train")
    send([case.process("torchrun")], signal.SIGKILL)


def terminate(kind: str) -> Callable[[Case], None]:
    def act(case: Case) -> None:
        case.reach()
        send([case.process(kind)], signal.SIGTERM)

    return act


def drain(case: Case) -> None:
    """The worker is told to shut down, ends, and is started again."""
    case.reach()
    service = case.service()
    assert service.process is not None
    service.process.terminate()


def kill_everything(case: Case) -> None:
    case.reach()
    stack = case.stack
    for service in stack.services.values():
        send(service.tree(), signal.SIGKILL)
    for server in (stack.postgres, stack.valkey):
        assert server.process is not None
        server.process.kill()


def two_apis(case: Case) -> None:
    case.reach()
    first, second = case.random.sample(["api", "api-2"], 2)
    send(case.stack.services[first].tree(), signal.SIGKILL)
    send(case.stack.services[second].tree(), signal.SIGSTOP)
    case.for_a_while(4.0)
    send(case.stack.services[second].tree(), signal.SIGCONT)


# -- processes freeze --


def freeze_ranks(case: Case) -> None:
    case.reach()
    ranks = [case.process("rank 0"), case.process("rank 1")]
    send(ranks, signal.SIGSTOP)
    case.for_a_while(3.0)
    send(ranks, signal.SIGCONT)


def freeze_parent(case: Case) -> None:
    """The heartbeats end, while the supervisor goes on renewing its lease."""
    case.reach(5, 30)
    service = case.service()
    assert service.process is not None
    service.process.send_signal(signal.SIGSTOP)
    case.beyond_the_lease()
    service.process.send_signal(signal.SIGCONT)


def freeze_worker(*, training: bool) -> Callable[[Case], None]:
    """SIGSTOP beyond the lease, then SIGCONT. With `training`, the ranks go on in the meantime."""

    def act(case: Case) -> None:
        case.reach(5, 30)
        frozen = case.service().tree()
        if training:
            marked = {p.pid for p in case.processes()}
            supervisor = case.process("supervisor").pid
            frozen = [p for p in frozen if p.pid not in marked or p.pid == supervisor]
        send(frozen, signal.SIGSTOP)
        case.beyond_the_lease()
        send(frozen, signal.SIGCONT)

    return act


# -- servers --


def server(name: str, *, kill: bool = False, away: bool = False) -> Callable[[Case], None]:
    def act(case: Case) -> None:
        case.reach()
        one = getattr(case.stack, name)
        if kill:
            one.process.kill()
            return
        one.stop()
        if away:
            case.for_a_while(5.0)
        one.start()

    return act


def freeze_postgres(case: Case) -> None:
    import psutil

    case.reach()
    assert case.stack.postgres.process is not None
    top = psutil.Process(case.stack.postgres.process.pid)
    processes = [top, *top.children(recursive=True)]
    send(processes, signal.SIGSTOP)
    time.sleep(case.random.uniform(0.5, 5.0))
    send(processes, signal.SIGCONT)


def flush(case: Case) -> None:
    case.reach()
    case.stack.flush()


def flush_queued(case: Case) -> None:
    """The call waits in the broker when the broker forgets it."""
    case.reach()
    service = case.service()
    send(service.tree(), signal.SIGKILL)
    for _ in range(20):
        case.stack.flush()
        case.stack.pause(0.1)


# -- networks --


def network(service: str, server: str, how: str, *, long: bool = False) -> Callable[[Case], None]:
    def act(case: Case) -> None:
        case.reach(5, 30)
        one = case.service() if service == "worker" else case.stack.services[service]
        link = getattr(one, server)
        getattr(link, how)()
        if long:
            case.beyond_the_lease()
        else:
            case.for_a_while(3.0)
        link.mend()

    return act


def flapping(case: Case) -> None:
    case.reach(5, 30)
    link = case.service().postgres
    for _ in range(8):
        link.cut()
        case.for_a_while(0.3)
        link.mend()
        case.for_a_while(0.3)


# -- messages --


def duplicates(case: Case) -> None:
    case.reach()
    case.call(5)


def duplicates_at_the_start(case: Case) -> None:
    case.call(5)


def resurrected(case: Case) -> None:
    """A call comes back from the dead once its stage has succeeded."""
    case.until(lambda: case.status() is RunStatus.SUCCEEDED, "the run to succeed")
    case.call(2)
    case.stack.pause(1.5)


def garbage(case: Case) -> None:
    case.reach()
    bodies = [b"no json", b"{}", b"\xff\xfe\x00", b'{"body": "###", "headers": {}, "properties": {}}', b"[" * 5000]
    with redis.Redis.from_url(case.stack.valkey.url) as client:
        client.lpush("nanoctl:gpu", *bodies)
    case.until(lambda: case.status() is RunStatus.SUCCEEDED, "the run to succeed")
    case.stack.pause(1.5)


# -- storage --


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


def half_written(case: Case) -> None:
    case.until((case.out() if case.attempts() else case.stack.home).exists, "the attempt")
    case.until(lambda: _saving(case), "a checkpoint to be half-written")
    send([case.process("rank 0")], signal.SIGKILL)


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


def _truncate(folder: str) -> None:
    os.truncate(f"{folder}/state.json", 100)


def _overwrite_manifest(folder: str) -> None:
    with open(f"{folder}/{MANIFEST}", "w") as file:
        file.write('{"version": 1, "files": [')


def _append(line: bytes) -> Callable[[Case], None]:
    def act(case: Case) -> None:
        case.reach()
        with (case.out() / EVENTS).open("ab", buffering=0) as file:
            file.write(line + b"\n")

    return act


def strange_line(case: Case) -> None:
    """The trainer itself reports it, see Plan."""


def _saving(case: Case) -> bool:
    try:
        return (case.out() / SAVING).exists()
    except ValueError:
        return False


# -- stops --


def term_while_saving(kind: str) -> Callable[[Case], None]:
    def act(case: Case) -> None:
        case.until(lambda: _saving(case), "a checkpoint to be half-written")
        if kind == "worker":
            process = case.service().process
            assert process is not None
            process.terminate()
        else:
            send([case.process(kind)], signal.SIGTERM)

    return act


def pause_and_resume(case: Case) -> None:
    case.reach()
    with case.stack.factory.begin() as s:
        runs.pause(s, case.run_id)
    case.until(lambda: case.status() is RunStatus.PAUSED, "the run to pause", 20)
    with case.stack.factory.begin() as s:
        runs.resume(s, case.run_id)


def cancel(case: Case) -> None:
    case.reach()
    with case.stack.factory.begin() as s:
        runs.cancel(s, case.run_id)


def cancel_while_cut_off(case: Case) -> None:
    case.reach()
    link = case.service().postgres
    link.cut()
    with case.stack.factory.begin() as s:
        runs.cancel(s, case.run_id)
    case.for_a_while(3.0)
    link.mend()
    with case.stack.factory.begin() as s:
        assert s.scalar(select(Run.desired).where(Run.id == case.run_id)) is Desired.CANCEL


# -- clocks --


def clock_step(case: Case) -> None:
    """The wall clock is set while the stage runs: every wall time by which its supervisor is known is now off by an hour."""
    case.reach()
    by = case.random.choice([-3600.0, 3600.0])
    attempt = case.attempts()[-1]
    moved = {k: v + by if isinstance(v, float) and v > 1e9 else v for k, v in attempt.process.items()}
    case.notes.append("" if moved != attempt.process else "no wall time is kept")
    with case.stack.factory.begin() as s:
        s.execute(update(Attempt).where(Attempt.id == attempt.id).values(process=moved))


_GARBAGE_LINE = b'{"v": 1, "seq": 7, \xff\xfe nonsense'
_NUL_LINE = json.dumps({"v": 1, "kind": "log"}).encode()

FAULTS: tuple[Fault, ...] = (
    Fault("no fault", lambda case: None, attempts=1, restarts=False),
    Fault("kill -9 rank 0", kill("rank 0"), restarts=False),
    Fault("kill -9 rank 1", kill("rank 1"), restarts=False),
    Fault("kill -9 torchrun", kill("torchrun"), restarts=False),
    Fault("kill -9 the supervisor", kill("supervisor"), restarts=False),
    Fault("kill -9 the worker's parent process", kill_worker),
    Fault("kill -9 the worker and all its processes", kill_worker_and_all),
    Fault("kill -9 the worker, another one waits", kill_worker_and_all, services=TWO_WORKERS),
    Fault("kill -9 rank 0, then torchrun of the next attempt", kill_twice, restarts=False),
    Fault("kill -9 the API", kill_service("api"), attempts=1),
    Fault("kill -9 one of two APIs, freeze the other", two_apis, services=TWO_APIS, attempts=1),
    Fault("kill -9 Postgres", server("postgres", kill=True), attempts=1),
    Fault("kill -9 Valkey", server("valkey", kill=True), attempts=1),
    Fault("kill -9 the whole stack", kill_everything),
    Fault("two machines train one stage", lambda case: None, TOGETHER, TWO_NODES, attempts=1, restarts=False),
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
    Fault("five copies of the call while it runs", duplicates, attempts=1, restarts=False),
    Fault("five copies of the call at once", duplicates_at_the_start, services=TWO_WORKERS, attempts=1, restarts=False),
    Fault("the call of a finished stage comes back", resurrected, attempts=1, restarts=False),
    Fault("garbage in the queue", garbage, attempts=1, restarts=False),
    Fault("full disk", full_disk, LONG, needs_mount=True),
    Fault("read-only run folder", read_only_folder, LONG, needs_mount=True),
    Fault("read-only home", read_only_home, LONG, needs_mount=True),
    Fault("kill -9 with a half-written checkpoint", half_written, SLOW_SAVE, restarts=False),
    Fault("truncated checkpoint", damage(_truncate), restarts=False),
    Fault("corrupted manifest of a checkpoint", damage(_overwrite_manifest), restarts=False),
    Fault("checkpoint gone", damage(shutil.rmtree), restarts=False),
    Fault("corrupted line in the spool", _append(_GARBAGE_LINE), attempts=1, restarts=False),
    Fault("event without a number or a time in the spool", _append(_NUL_LINE), attempts=1, restarts=False),
    Fault("event with an impossible time", strange_line, Plan(strange_time_at=30), attempts=1, restarts=False),
    Fault("200,000 empty log lines", strange_line, Plan(lines_at=30), attempts=1, restarts=False),
    Fault("SIGTERM to a rank during a checkpoint", term_while_saving("rank 0"), SLOW_SAVE, restarts=False),
    Fault("SIGTERM to the worker during a checkpoint", term_while_saving("worker"), SLOW_SAVE),
    Fault("SIGTERM to the worker, the trainer ignores the stop file", drain, DEAF),
    Fault("cancel, the trainer ignores the stop file", cancel, DEAF, ends=RunStatus.CANCELLED, restarts=False),
    Fault("cancel", cancel, LONG, ends=RunStatus.CANCELLED, attempts=1, restarts=False),
    Fault("cancel while the worker is cut off", cancel_while_cut_off, LONG, ends=RunStatus.CANCELLED, restarts=False),
    Fault("pause and resume", pause_and_resume, LONG, attempts=2, restarts=False),
    Fault("step of the wall clock", clock_step, LONG, attempts=1, restarts=False),
)
