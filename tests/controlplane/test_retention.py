"""What garbage collection marks and deletes, what it never touches, and what a user may delete."""

from __future__ import annotations

import pytest

from controlplane import promotion, retention
from controlplane.claims import Claim
from controlplane.errors import Conflict
from controlplane.lifecycle import Reason
from controlplane.models import Checkpoint
from controlplane.retention import Need
from controlplane.timing import Timing
from tests.controlplane.ledger import Ledger, artifact, checkpoint

NOW = Timing(gc_grace=0.0)
LATER = Timing(gc_grace=3600.0)


def training(ledger: Ledger) -> tuple[str, Claim]:
    """A run whose pretraining runs."""
    run = ledger.submit()
    ledger.worker("c", "cpu", slots=4)
    ledger.worker("g", "gpu")
    for stage in ("data", "tok_train"):
        ledger.complete(run, stage, "c")
    ledger.dispatch()
    return run, ledger.begin(run, "base_train", "g")


def trained(ledger: Ledger, *steps: int) -> str:
    """A run whose pretraining has succeeded with checkpoints at these steps. The last one is the published model."""
    run, claim = training(ledger)
    events = [checkpoint(step) for step in steps[:-1]]
    last = checkpoint(steps[-1], final=True)
    model = {**artifact("model"), "path": last["path"]}
    others = [artifact(name) for name in claim.outputs if name != "model"]
    # Bits per byte fall and then rise: the second checkpoint is the best one.
    scored = [{**event, "val_bpb": abs(i - 1) + 1.0} for i, event in enumerate([*events, last])]
    ledger.report(claim.fence, *scored, model, *others)
    ledger.finish(claim.fence)
    return run


def collect(ledger: Ledger, timing: Timing = NOW, *, dry_run: bool = False) -> list[int]:
    with ledger.factory.begin() as s:
        return [h.checkpoint.step for h in retention.collect(s, dry_run=dry_run, timing=timing)]


def expired(ledger: Ledger) -> list[str]:
    with ledger.factory.begin() as s:
        return [path for _, path in retention.take_expired(s)]


def id_of(ledger: Ledger, step: int) -> str:
    with ledger.factory.begin() as s:
        return s.query(Checkpoint.id).filter_by(step=step).scalar()


def test_the_best_and_the_published_one_are_kept(ledger: Ledger) -> None:
    trained(ledger, 10, 20, 30, 40)
    assert collect(ledger, dry_run=True) == [10, 30]
    assert expired(ledger) == []  # nothing was changed
    assert collect(ledger, LATER) == [10, 30]
    assert expired(ledger) == []  # not yet
    trained(ledger, 11, 21, 31)
    assert collect(ledger) == [10, 30, 11]  # those that are marked keep their time
    assert expired(ledger) == [checkpoint(11)["path"]]


def test_a_pin_or_a_promotion_takes_the_mark_back(ledger: Ledger) -> None:
    trained(ledger, 10, 20, 30, 40)
    assert collect(ledger) == [10, 30]
    with ledger.factory.begin() as s:
        retention.pin(s, id_of(ledger, 10))
        promotion.promote(s, id_of(ledger, 30))
    assert expired(ledger) == []
    assert collect(ledger) == []
    with ledger.factory.begin() as s:
        retention.pin(s, id_of(ledger, 10), pinned=False)
    assert collect(ledger) == [10]


def test_a_folder_is_handed_out_until_it_is_gone(ledger: Ledger) -> None:
    trained(ledger, 10, 20, 30)
    collect(ledger)
    assert expired(ledger) == expired(ledger) == [checkpoint(10)["path"]]
    with ledger.factory.begin() as s:
        retention.freed(s, id_of(ledger, 10))
    assert expired(ledger) == []


def test_a_running_stage_keeps_all_and_a_failed_one_its_newest_two(ledger: Ledger) -> None:
    _, claim = training(ledger)
    ledger.report(claim.fence, *[checkpoint(step) | {"val_bpb": None} for step in (10, 20, 30)])
    assert collect(ledger) == []
    with ledger.factory.begin() as s, pytest.raises(Conflict, match="an attempt of its stage is running"):
        retention.discard(s, id_of(ledger, 10))
    ledger.finish(claim.fence, Reason.NONFINITE)
    assert collect(ledger) == [10]


def test_what_became_necessary_after_it_was_marked_is_kept(ledger: Ledger) -> None:
    _, claim = training(ledger)
    ledger.report(claim.fence, *[checkpoint(step) | {"val_bpb": None} for step in (10, 20, 30)])
    ledger.finish(claim.fence, Reason.NONFINITE)
    assert collect(ledger) == [10]
    with ledger.factory.begin() as s:
        retention.discard(s, id_of(ledger, 30))  # so that 10 is one of the newest two
    assert expired(ledger) == [checkpoint(30)["path"]]
    assert collect(ledger) == []


@pytest.mark.parametrize("need", [Need.PINNED, Need.SERVED, Need.PUBLISHED])
def test_a_user_cannot_delete_what_is_needed(ledger: Ledger, need: Need) -> None:
    trained(ledger, 10, 20, 30)
    step = 30 if need is Need.PUBLISHED else 10
    with ledger.factory.begin() as s:
        if need is Need.PINNED:
            retention.pin(s, id_of(ledger, step))
        if need is Need.SERVED:
            promotion.promote(s, id_of(ledger, step))
    with ledger.factory.begin() as s, pytest.raises(Conflict, match=need.split(";")[0]):
        retention.discard(s, id_of(ledger, step))
    assert expired(ledger) == []


def test_a_user_may_delete_the_best_one_and_then_it_cannot_be_promoted_or_pinned(ledger: Ledger) -> None:
    trained(ledger, 10, 20, 30)
    best = id_of(ledger, 20)
    with ledger.factory.begin() as s:
        retention.discard(s, best)
    for act in (retention.pin, retention.discard, promotion.promote):
        with ledger.factory.begin() as s, pytest.raises(Conflict):
            act(s, best)
    assert expired(ledger) == [checkpoint(20)["path"]]
