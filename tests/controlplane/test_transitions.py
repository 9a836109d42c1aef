"""The gate on a real database: every pair of statuses, tried on a row."""

from __future__ import annotations

from itertools import product

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from controlplane.errors import IllegalTransition
from controlplane.lifecycle import LIVE_ATTEMPT, TRANSITIONS, AttemptStatus, Reason, StageStatus
from controlplane.models import Event, Stage
from controlplane.transitions import stage_gate
from tests.controlplane.ledger import Ledger


def test_the_gate_moves_a_row_with_one_event_or_not_at_all(ledger: Ledger) -> None:
    run = ledger.submit()
    stage_id = ledger.id_of(run, "data")
    for frm, to in product(StageStatus, StageStatus):
        with ledger.factory.begin() as s:
            s.execute(update(Stage).where(Stage.id == stage_id).values(status=frm))
            before = _moves(s, stage_id)
        if to in TRANSITIONS[frm]:
            with ledger.factory.begin() as s, stage_gate(s, stage_id) as (g, stage):
                g.move(stage, to)
        else:
            with pytest.raises(IllegalTransition), ledger.factory.begin() as s, stage_gate(s, stage_id) as (g, stage):
                g.move(stage, to)
        with ledger.factory.begin() as s:
            moved = _moves(s, stage_id) - before
            assert (s.get_one(Stage, stage_id).status, moved) == ((to, 1) if to in TRANSITIONS[frm] else (frm, 0)), (frm, to)


def test_an_attempt_ends_once(ledger: Ledger) -> None:
    run = ledger.submit()
    ledger.worker("w", "cpu")
    ledger.dispatch()
    claim = ledger.begin(run, "data", "w")
    for status, reason in product(AttemptStatus, Reason):
        with ledger.factory.begin() as s, stage_gate(s, claim.fence.stage_id) as (g, stage):
            attempt = g.attempt_of(stage)
            attempt.status = status
            s.flush()
            if status in LIVE_ATTEMPT:
                g.end_attempt(attempt, reason)
                assert attempt.status is reason.attempt_status
            else:
                with pytest.raises(IllegalTransition):
                    g.end_attempt(attempt, reason)


def _moves(s: Session, stage_id: int) -> int:
    return s.scalar(select(func.count()).where(Event.stage_id == stage_id, Event.kind == "stage_status")) or 0
