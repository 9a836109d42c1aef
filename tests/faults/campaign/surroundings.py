"""Faults of what a run depends on: servers, networks, messages, clocks."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import psutil
import redis

from controlplane.lifecycle import RunStatus
from tests.faults.campaign.case import Case, send

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
    case.reach()
    assert case.stack.postgres.process is not None
    top = psutil.Process(case.stack.postgres.process.pid)
    processes = [top, *top.children(recursive=True)]
    send(processes, signal.SIGSTOP)
    time.sleep(case.random.uniform(0.5, 5.0))
    send(processes, signal.SIGCONT)


def kill_backend(case: Case) -> None:
    """Postgres ends all its connections and recovers."""
    case.reach()
    assert case.stack.postgres.process is not None
    children = psutil.Process(case.stack.postgres.process.pid).children()
    send([case.random.choice([p for p in children if "nanochat" in " ".join(p.cmdline())])], signal.SIGKILL)


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


def call_not_sent(case: Case) -> None:
    """The stage becomes due while no call can be sent to a worker."""
    case.reach()
    case.stack.services["api"].valkey.cut()
    send([case.process("rank 0")], signal.SIGKILL)
    case.until(lambda: case.attempts()[-1].finished_at is not None, "the attempt to end")
    case.for_a_while(3.0)
    case.stack.services["api"].valkey.mend()


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


# -- clocks --


def clock(*names: str) -> Callable[[Case], None]:
    """The wall clocks of these processes are set an hour ahead or back, and after a while to the right time again."""

    def act(case: Case) -> None:
        case.reach(5, 90)
        by = case.random.choice([-3600, 3600])
        for name in names:
            case.stack.clocks.set(name, by)
        case.for_a_while(6.0)
        case.stack.clocks.mend()

    return act
