"""Plan against what happened."""

from __future__ import annotations

import pytest
from sqlalchemy import func, update

from controlplane import actuals, runs, workers
from controlplane.errors import NotFound
from controlplane.lifecycle import Reason
from controlplane.models import Attempt
from nanochat.config import recipe
from nanochat.planning.plan import plan
from tests.controlplane.ledger import Ledger, metric


def test_every_stage_is_compared_with_its_plan(ledger: Ledger) -> None:
    tiny = recipe.resolve("tiny")
    figures = plan(tiny, 1, "H100", usd_per_hour=3)
    with ledger.factory.begin() as s:
        run = runs.submit(s, tiny, planned=figures).run.id
        workers.register(s, "gpus", queue="gpu", hostname="here", gpus=1, gpu_name="NVIDIA H100 80GB HBM3")
    ledger.worker("cpus", "cpu", slots=2)
    for stage in ("data", "tok_train"):
        ledger.complete(run, stage, "cpus")
    ledger.dispatch()
    claim = ledger.begin(run, "base_train", "gpus")
    ledger.report(claim.fence, metric(10, tok_per_s=1234.0, mfu=41.0))
    ledger.finish(claim.fence, Reason.COMPLETED)
    with ledger.factory.begin() as s:
        two_hours = Attempt.claimed_at + func.make_interval(0, 0, 0, 0, 2)
        s.execute(update(Attempt).where(Attempt.worker_id == "gpus").values(finished_at=two_hours))
    with ledger.factory.begin() as s:
        found = {stage.stage: stage for stage in actuals.comparison(s, run).stages}
    base, data, sft = found["base_train"], found["data"], found["sft"]
    said = figures.stages[0]
    assert (base.planned_hours, base.planned_usd, base.planned_tok_per_s) == (said.hours, said.usd, said.tok_per_s)
    assert (base.hours, base.usd) == (pytest.approx(2), pytest.approx(6))  # one GPU at $3
    assert (base.tok_per_s, base.mfu, base.attempts) == (1234.0, 41.0, 1)
    assert (data.planned_hours, data.usd, data.attempts) == (None, 0.0, 1)
    assert (sft.attempts, sft.hours) == (0, 0.0)


def test_the_plan_of_an_unknown_run_is_not_found(ledger: Ledger) -> None:
    with ledger.factory.begin() as s, pytest.raises(NotFound):
        actuals.comparison(s, "r_0000000000000000")
