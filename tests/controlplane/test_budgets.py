"""Budgets: dollars and hours are counted from the attempts; a warning at 80 %, a pause at 100 %, and a way on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from controlplane import budgets, runs
from controlplane.errors import Conflict
from controlplane.lifecycle import Desired, Reason, RunStatus, StageStatus
from controlplane.models import Attempt, Event
from controlplane.runs import Terms
from nanochat.config import recipe
from tests.controlplane.ledger import Ledger, checkpoint


def training(ledger: Ledger, terms: Terms, gpus: int = 8, gpu_name: str = "NVIDIA H100 80GB HBM3") -> tuple[str, object]:
    """A run whose base training is live on these GPUs; the stages before it took no time."""
    from controlplane import workers

    with ledger.factory.begin() as s:
        run = runs.submit(s, recipe.resolve("tiny"), terms=terms).run.id
        workers.register(s, "gpus", queue="gpu", hostname="here", gpus=gpus, gpu_name=gpu_name)
    ledger.worker("cpus", "cpu", slots=2)
    for stage in ("data", "tok_train"):
        ledger.complete(run, stage, "cpus")
    ledger.dispatch()
    with ledger.factory.begin() as s:
        s.execute(update(Attempt).values(finished_at=Attempt.claimed_at))
    return run, ledger.begin(run, "base_train", "gpus")


def age(ledger: Ledger, hours: float) -> None:
    """Let the live attempts have begun this many hours ago."""
    with ledger.factory.begin() as s:
        began = func.clock_timestamp() - timedelta(hours=hours)
        s.execute(update(Attempt).where(Attempt.finished_at.is_(None)).values(claimed_at=began))


def tick(ledger: Ledger) -> int:
    return budgets.tick(ledger.factory, timing=ledger.timing)


def notes(ledger: Ledger, run: str, kind: str) -> list[str]:
    with ledger.factory.begin() as s:
        query = select(Event).where(Event.run_id == run, Event.kind == kind).order_by(Event.id)
        return [event.data["message"] for event in s.scalars(query)]


@pytest.mark.parametrize(
    ("terms", "warned", "spent", "words"),
    [
        (Terms(max_usd=48), 1.7, 2.01, "of $48.00"),  # 8 GPUs at $3 an hour
        (Terms(max_usd=8, usd_per_hour=0.5), 1.7, 2.01, "of $8.00"),
        (Terms(max_hours=2), 1.7, 2.01, "of 2.00 hours"),
    ],
)
def test_a_run_is_warned_about_and_paused(ledger: Ledger, terms: Terms, warned: float, spent: float, words: str) -> None:
    run, claim = training(ledger, terms)
    age(ledger, 1.0)
    assert tick(ledger) == 0
    assert notes(ledger, run, "budget_warning") == []
    age(ledger, warned)
    assert (tick(ledger), tick(ledger)) == (0, 0)
    assert len(notes(ledger, run, "budget_warning")) == 1
    assert words in notes(ledger, run, "budget_warning")[0]
    assert ledger.run(run).desired is Desired.RUN
    age(ledger, spent)
    assert tick(ledger) == 1
    assert "raise its budget" in notes(ledger, run, "budget_spent")[0]
    assert ledger.stage(run, "base_train").status is StageStatus.STOPPING
    ledger.report(claim.fence, checkpoint(40))
    assert ledger.finish(claim.fence, Reason.BUDGET) is StageStatus.PAUSED
    assert ledger.run(run).status is RunStatus.PAUSED
    assert "budget is spent" in ledger.stage(run, "base_train").message
    assert ledger.stage(run, "base_train").failures == 0


def test_a_run_goes_on_with_a_raised_budget_and_is_paused_again_without(ledger: Ledger) -> None:
    run, claim = training(ledger, Terms(max_hours=1))
    age(ledger, 1.5)
    assert tick(ledger) == 1
    ledger.finish(claim.fence, Reason.BUDGET)
    with ledger.factory.begin() as s:
        runs.resume(s, run)
    assert tick(ledger) == 1
    assert ledger.run(run).desired is Desired.PAUSE
    with ledger.factory.begin() as s:
        budgets.change(s, run, max_hours=3)
        runs.resume(s, run)
    assert tick(ledger) == 0
    assert ledger.stage(run, "base_train").status is StageStatus.QUEUED


def test_a_run_without_a_budget_is_left_alone(ledger: Ledger) -> None:
    run, _ = training(ledger, Terms())
    age(ledger, 1000)
    assert tick(ledger) == 0
    with ledger.factory.begin() as s:
        used = budgets.usage(s, ledger.run(run))
    assert used.hours == pytest.approx(1000, rel=1e-3)
    assert used.gpu_hours == pytest.approx(8000, rel=1e-3)
    assert used.usd == pytest.approx(24_000, rel=1e-3)


def test_dollars_are_unknown_on_hardware_without_a_price(ledger: Ledger) -> None:
    run, _ = training(ledger, Terms(), gpu_name="Voodoo 2")
    with ledger.factory.begin() as s:
        assert budgets.usage(s, ledger.run(run)).usd is None


def test_the_budget_of_a_finished_run_cannot_be_changed(ledger: Ledger) -> None:
    run = ledger.submit()
    with ledger.factory.begin() as s:
        runs.cancel(s, run)
    with ledger.factory.begin() as s, pytest.raises(Conflict):
        budgets.change(s, run, max_usd=5)
