"""The order of the queue: priority, then fair shares of the owners, then time; and why each stage waits."""

from __future__ import annotations

import pytest

from controlplane import queueing, runs, views, workers
from controlplane.errors import NotFound
from controlplane.lifecycle import StageStatus
from controlplane.runs import Terms
from controlplane.schemas import QueuedView
from nanochat.config import recipe
from tests.controlplane.ledger import Ledger


def submit(ledger: Ledger, owner: str, priority: int = 0) -> str:
    with ledger.factory.begin() as s:
        return runs.submit(s, recipe.resolve("tiny"), owner=owner, terms=Terms(priority=priority)).run.id


def claim(ledger: Ledger, worker: str) -> str | None:
    """The run whose turn it is, called for the stage that was queued last."""
    found = queueing.claim_first(ledger.factory, ledger.calls[-1][0], worker, timing=ledger.timing)
    return found.fence.run_id if found else None


def waiting(ledger: Ledger) -> list[QueuedView]:
    with ledger.factory.begin() as s:
        return queueing.entries(s, timing=ledger.timing)


def test_owners_take_turns_whatever_the_number_of_their_runs(ledger: Ledger) -> None:
    many = [submit(ledger, "ann") for _ in range(3)]
    ledger.dispatch()
    one = submit(ledger, "bob")
    ledger.dispatch()
    ledger.worker("w", "cpu", slots=4)
    assert [q.run_id for q in waiting(ledger)] == [many[0], one, many[1], many[2]]
    assert [claim(ledger, "w") for _ in range(5)] == [many[0], one, many[1], many[2], None]


def test_an_owner_who_holds_slots_waits_for_the_others(ledger: Ledger) -> None:
    first = submit(ledger, "ann")
    ledger.dispatch()
    ledger.worker("w", "cpu", slots=2)
    assert claim(ledger, "w") == first
    second = submit(ledger, "ann")
    ledger.dispatch()
    other = submit(ledger, "bob")
    ledger.dispatch()
    assert [q.run_id for q in waiting(ledger)] == [other, second]
    assert claim(ledger, "w") == other


def test_a_greater_priority_goes_first(ledger: Ledger) -> None:
    low, high = submit(ledger, "ann", -5), submit(ledger, "ann", 5)
    middle = submit(ledger, "bob")
    ledger.dispatch()
    assert [(q.run_id, q.position) for q in waiting(ledger)] == [(high, 1), (middle, 2), (low, 3)]


def test_a_paused_run_has_no_turn(ledger: Ledger) -> None:
    run = submit(ledger, "ann")
    ledger.dispatch()
    with ledger.factory.begin() as s:
        runs.pause(s, run)
    assert waiting(ledger) == []
    ledger.worker("w", "cpu")
    assert claim(ledger, "w") is None
    with ledger.factory.begin() as s:
        stages = views.run_view(s, run).stages
    assert stages[0].status is StageStatus.PAUSED
    assert stages[0].waiting is not None
    assert "Paused on request" in stages[0].waiting.why


def test_nobody_learns_the_runs_of_another_project(ledger: Ledger) -> None:
    """Neither from the reason why a stage waits nor from the list of workers."""
    with ledger.factory.begin() as s:
        secret = runs.submit(s, recipe.resolve("tiny"), owner="ann", project="secret").run.id
    ledger.dispatch()
    ledger.worker("w", "cpu")
    assert claim(ledger, "w") == secret
    waits = submit(ledger, "bob")
    ledger.dispatch()
    ledger.worker("w", "cpu")
    with ledger.factory.begin() as s:
        stage = views.run_view(s, waits).stages[0]
        seen = {of: views.workers(s, project=of)[0] for of in ("secret", "default")}
    assert stage.waiting is not None
    assert stage.waiting.why == "the only slot of the cpu workers is taken, by 1 of other projects"
    assert [worker.status for worker in seen.values()] == ["busy", "busy"]
    assert seen["secret"].attempts == [f"{secret}/data/1"]
    assert seen["default"].attempts == ["(another project)"]


def test_the_queue_says_why_a_stage_waits(ledger: Ledger) -> None:
    first, second, third = (submit(ledger, "ann") for _ in range(3))
    ledger.dispatch()
    assert "no cpu worker is alive: start one" in waiting(ledger)[0].why
    ledger.worker("w", "cpu")
    assert "free slot" in waiting(ledger)[0].why
    assert waiting(ledger)[1].why == "1 queued before it, for 1 free of 1 slot of the cpu workers"
    assert claim(ledger, "w") == first
    ledger.worker("w", "cpu")  # a heartbeat
    assert [q.why for q in waiting(ledger)] == [
        f"the only slot of the cpu workers is taken, by Data of {first}",
        f"the only slot of the cpu workers is taken, by Data of {first}; 1 queued before it",
    ]
    with ledger.factory.begin() as s:
        workers.beat(s, "w", draining=True)
    assert "every cpu worker is draining" in waiting(ledger)[0].why
    with ledger.factory.begin() as s:
        stages = {stage.name: stage.waiting for stage in views.run_view(s, third).stages}
    assert stages["data"] is not None
    assert stages["data"].position == 2
    assert stages["tok_train"] is not None
    assert stages["tok_train"].why == "waits for Data"
    assert second in [q.run_id for q in waiting(ledger)]


def test_a_call_for_an_unknown_stage_is_refused(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        queueing.claim_first(ledger.factory, 10**12, "w")
