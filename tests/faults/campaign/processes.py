"""Faults of processes: they die, freeze, and are told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable

from sqlalchemy import select

from controlplane import runs
from controlplane.lifecycle import Desired, RunStatus
from controlplane.models import Run
from tests.faults.campaign.case import Case, send
from tests.faults.campaign.trainer import SAVING

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
    case.until(lambda: case.out().name == "attempt-2" and case.step() > 5, "the second attempt to train")
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


# -- in the middle of a checkpoint, and on request --


def half_written(case: Case) -> None:
    case.until((case.out() if case.attempts() else case.stack.home).exists, "the attempt")
    case.until(lambda: _saving(case), "a checkpoint to be half-written")
    send([case.process("rank 0")], signal.SIGKILL)


def _saving(case: Case) -> bool:
    try:
        return (case.out() / SAVING).exists()
    except ValueError:
        return False


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
