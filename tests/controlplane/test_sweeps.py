"""The loop of sweeps: it releases held runs, carries out wishes once, and no sweep holds up another one."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from controlplane import sweeps
from controlplane.db import SessionFactory
from controlplane.lifecycle import Desired, Wish
from controlplane.models import Event, Run
from controlplane.runs import Terms
from nanochat.config.recipe import resolve
from nanochat.planning.plan import plan


def start(factory: SessionFactory, *, max_parallel: int | None = None, **spec: Any) -> str:
    members = [sweeps.Member(f"seed={n}", {"seed": n}, r, plan(r)) for n in (1, 2) if (r := resolve("tiny", {"seed": n}))]
    with factory.begin() as session:
        made = sweeps.submit(session, members, name="s", kind="grid", spec=spec, terms=Terms(), max_parallel=max_parallel)
        return made.sweep.id


def members(factory: SessionFactory, sweep_id: str) -> list[Run]:
    with factory() as session:
        return list(session.scalars(select(Run).where(Run.sweep_id == sweep_id).order_by(Run.sweep_no)))


def test_a_sweep_that_cannot_be_worked_on_does_not_hold_up_the_others(sessions: SessionFactory) -> None:
    ids = [start(sessions, max_parallel=1) for _ in range(3)]
    broken = sorted(ids)[0]
    with sessions.begin() as session:
        sweeps.locked(session, broken).spec = {"stop_early": {"metric": "val_bpb", "after": -1}}
        for sweep_id in ids:
            sweeps.locked(session, sweep_id).max_parallel = 2
    with pytest.raises(ValueError, match="after"):
        sweeps.tick(sessions)
    held = {sweep_id: [run.held for run in members(sessions, sweep_id)] for sweep_id in ids}
    assert held == {sweep_id: [False, sweep_id == broken] for sweep_id in ids}


def test_what_the_request_leaves_over_the_loop_does_once(sessions: SessionFactory) -> None:
    sweep_id = start(sessions)
    with sessions.begin() as session:
        sweeps.ask(session, sweep_id, Wish.PAUSE)
    assert sweeps.carry_out(sessions, sweep_id, within_s=-1.0) == 0
    assert [run.desired for run in members(sessions, sweep_id)] == [Desired.RUN] * 2
    assert sweeps.tick(sessions) == 2
    assert [(run.desired, run.wish) for run in members(sessions, sweep_id)] == [(Desired.PAUSE, None)] * 2
    with sessions.begin() as session:
        sweeps.ask(session, sweep_id, Wish.RESUME)
        sweeps.ask(session, sweep_id, Wish.CANCEL)  # the last wish counts
    sweeps.tick(sessions)
    sweeps.tick(sessions)
    with sessions() as session:
        query = select(Event.data).where(Event.run_id == members(sessions, sweep_id)[0].id, Event.kind == "run_status")
        assert [data["to"] for data in session.scalars(query.order_by(Event.id))] == ["PAUSED", "CANCELLED"]
