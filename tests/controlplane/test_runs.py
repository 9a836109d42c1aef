"""Submitting, listing and promoting: the functions that the API answers from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from controlplane import claims, keys, promotion, runs, views, workers
from controlplane.cursors import BadCursor
from controlplane.errors import Conflict, NotFound
from controlplane.lifecycle import Reason, RunStatus
from controlplane.list_schemas import RunSummary
from controlplane.run_list import RunQuery, Sort, run_page
from controlplane.runs import Terms
from controlplane.timing import Timing
from nanochat.config import recipe
from nanochat.planning import graph, plan
from tests.controlplane.ledger import Ledger, checkpoint, metric
from tests.controlplane.test_claims import at_once, started_run


def test_a_run_stores_its_whole_graph(ledger: Ledger) -> None:
    run = ledger.submit()
    with ledger.factory.begin() as s:
        view = views.run_view(s, run)
    assert [stage.name for stage in view.stages] == [stage.name for stage in graph.stages(recipe.resolve("tiny"))]
    assert view.config == recipe.resolve("tiny").model_dump(mode="json")
    assert (view.status, view.detail, view.started_at) == (RunStatus.QUEUED, "", None)
    with pytest.raises(NotFound), ledger.factory.begin() as s:
        views.run_view(s, "r_nothing")


def test_one_idempotency_key_makes_one_run(ledger: Ledger) -> None:
    def submit(digest: str = "a") -> runs.Submission:
        with ledger.factory.begin() as s:
            return runs.submit(s, recipe.resolve("tiny"), idempotency=runs.Idempotency("k1", "once", digest))

    made = at_once([submit] * 8)
    assert len({m.run.id for m in made}) == 1
    assert [m.created for m in made].count(True) == 1
    with pytest.raises(Conflict, match="Idempotency-Key"):
        submit("b")
    with ledger.factory.begin() as s:
        other = runs.submit(s, recipe.resolve("tiny"), idempotency=runs.Idempotency("k2", "once", "a"))
    assert other.created


def test_a_rolled_back_submission_frees_its_key(ledger: Ledger) -> None:
    key = runs.Idempotency("k1", "once", "a")
    with ledger.factory() as s:
        runs.submit(s, recipe.resolve("tiny"), idempotency=key)
        s.rollback()
    with ledger.factory.begin() as s:
        assert runs.submit(s, recipe.resolve("tiny"), idempotency=key).created
        assert len(run_page(s).items) == 1


def test_pages_list_every_run_once(ledger: Ledger) -> None:
    made = [ledger.submit() for _ in range(5)]
    with ledger.factory.begin() as s:
        runs.cancel(s, made[2])
        seen, cursor = [], None
        while True:
            page = run_page(s, limit=2, cursor=cursor)
            seen += [item.id for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == made[::-1]
        assert [i.id for i in run_page(s, RunQuery(status=(RunStatus.CANCELLED,))).items] == [made[2]]
        with pytest.raises(BadCursor):
            run_page(s, cursor="nonsense")


@pytest.mark.parametrize("sort", list(Sort))
def test_sorted_and_searched_pages_list_every_run_once(ledger: Ledger, sort: Sort) -> None:
    names = ["b%_b", "a", "B%", "a", "ab"]
    with ledger.factory.begin() as s:
        made = [runs.submit(s, recipe.resolve("tiny"), name=name).run for name in names]
        whole = run_page(s, RunQuery(sort=sort)).items
        seen, cursor = [], None
        while True:
            page = run_page(s, RunQuery(sort=sort), limit=2, cursor=cursor)
            seen += page.items
            if (cursor := page.next_cursor) is None:
                break
        assert seen == whole
        assert {item.id for item in seen} == {run.id for run in made}
        if sort in (Sort.OLDEST, Sort.NEWEST):
            found = [item.created_at for item in seen]
            assert found == sorted(found, reverse=sort is Sort.NEWEST)
        assert sorted(r.name for r in run_page(s, RunQuery(search="B%", sort=sort)).items) == ["B%", "b%_b"]
        assert [r.name for r in run_page(s, RunQuery(search=made[4].id[4:], sort=sort)).items] == ["ab"]
        assert run_page(s, RunQuery(recipe="speedrun", sort=sort)).items == []
        assert run_page(s, RunQuery(created_before=made[0].created_at, sort=sort)).items == []
        assert len(run_page(s, RunQuery(created_after=made[0].created_at, sort=sort)).items) == 5


def test_a_summary_shows_the_current_stage(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    ledger.report(claim.fence, {"kind": "progress", "done": 1, "total": 4, "unit": "shard"})
    with ledger.factory.begin() as s:
        (item,) = run_page(s).items
    assert (item.id, item.stages_done, item.stages_total) == (run, 0, 10)
    assert item.current is not None
    assert (item.current.name, item.current.progress and item.current.progress.done) == ("data", 1)


def test_a_summary_shows_how_far_the_run_is_and_its_newest_figures(ledger: Ledger) -> None:
    planned = plan.plan(recipe.resolve("tiny")).model_dump(mode="json")
    with ledger.factory.begin() as s:
        run = runs.submit(s, recipe.resolve("tiny"), planned=plan.plan(recipe.resolve("tiny")), terms=Terms(max_usd=5)).run.id
    ledger.worker("c", "cpu")
    ledger.worker("g", "gpu", slots=2)

    def seen() -> RunSummary:
        with ledger.factory.begin() as s:
            (item,) = run_page(s).items
            whole = views.run_view(s, run)
        assert whole.fraction == item.fraction
        return item

    begun = seen()
    assert (begun.fraction, begun.eta_s, begun.figures.val_bpb) == (0.0, None, None)
    ledger.complete(run, "data", "c")
    ledger.complete(run, "tok_train", "c")
    ledger.dispatch()
    claim = ledger.begin(run, "base_train", "g")
    before = seen()
    assert 0 < before.fraction < 0.1  # the stages that train nothing count for a tenth
    assert before.eta_s is None
    progress = {"kind": "progress", "done": 30, "total": 60, "unit": "step", "eta_s": 100.0}
    ledger.report(claim.fence, progress, metric(30, val_bpb=2.5, tok_per_s=1000.0, core="nan"))
    half = seen()
    flops = {stage["stage"]: stage["flops"] for stage in planned["stages"]}
    gained = 0.9 * 0.5 * flops["base_train"] / sum(flops.values())
    assert half.fraction == pytest.approx(before.fraction + gained)
    tokens = {stage["stage"]: stage["tokens"] for stage in planned["stages"]}
    speed = 1000.0 * flops["base_train"] / tokens["base_train"]
    assert half.eta_s == pytest.approx(100 + (flops["mid_train"] + flops["sft"]) / speed)
    assert half.figures.model_dump() == {"tok_per_s": 1000.0, "val_bpb": 2.5, "core": None, "chatcore": None}
    assert (half.why, half.reason, half.queue_position) == ("", None, 1)  # the tokenizer's evaluation is queued
    assert (half.budget.max_usd, half.budget.used_usd) == (5, None)  # a GPU worker without a GPU has no price
    ledger.publish(claim.fence, *claim.outputs)
    ledger.finish(claim.fence)
    scores = [
        {"kind": "eval", "name": "bpb", "values": {"train": 2.3, "val": 2.4}},
        {"kind": "eval", "name": "core", "values": {"core": 0.21}},
    ]
    ledger.complete(run, "base_eval", "g", *scores)
    figures = seen().figures
    assert (figures.val_bpb, figures.core) == (2.4, 0.21)
    with ledger.factory.begin() as s:
        ordered = {sort: [r.id for r in run_page(s, RunQuery(sort=sort)).items] for sort in (Sort.CORE, Sort.CORE_DESCENDING)}
    assert ordered == {Sort.CORE: [run], Sort.CORE_DESCENDING: [run]}


def test_a_run_that_ended_without_an_evaluation_has_come_to_its_end(ledger: Ledger) -> None:
    run = ledger.submit()
    for queue in ("cpu", "gpu"):
        ledger.worker(queue, queue)
    for stage in graph.stages(recipe.resolve("tiny")):
        if stage.name != "tok_eval":
            ledger.complete(run, stage.name, stage.queue)
            continue
        ledger.dispatch()
        ledger.finish(ledger.begin(run, stage.name, stage.queue).fence, Reason.BAD_INPUT)
    with ledger.factory.begin() as s:
        whole, (item,) = views.run_view(s, run), run_page(s).items
    assert (whole.status, item.stages_done) == (RunStatus.SUCCEEDED, item.stages_total - 1)
    assert whole.fraction == item.fraction == 1.0


def test_runs_without_a_figure_come_last_in_either_direction(ledger: Ledger) -> None:
    ledger.worker("g", "gpu", slots=9)
    ledger.worker("c", "cpu", slots=9)
    cores: dict[str, float | None] = {}
    for core in (None, 0.3, 0.1, 0.2):
        run = ledger.submit()
        cores[run] = core
        for stage in ("data", "tok_train"):
            ledger.complete(run, stage, "c")
        ledger.dispatch()
        claim = ledger.begin(run, "base_train", "g")
        if core is not None:
            ledger.report(claim.fence, metric(1, core=core))
    for sort, wanted in ((Sort.CORE, [0.1, 0.2, 0.3, None]), (Sort.CORE_DESCENDING, [0.3, 0.2, 0.1, None])):
        found, cursor = [], None
        with ledger.factory.begin() as s:
            while True:
                page = run_page(s, RunQuery(sort=sort), limit=1, cursor=cursor)
                found += [cores[item.id] for item in page.items]
                if (cursor := page.next_cursor) is None:
                    break
        assert found == wanted


def test_a_summary_says_why_a_run_does_not_go_on(ledger: Ledger) -> None:
    run, claim = started_run(ledger)

    def said() -> tuple[Reason | None, str]:
        with ledger.factory.begin() as s:
            (item,) = run_page(s).items
            return item.reason, item.why

    with ledger.factory.begin() as s:
        claims.finish(s, claim.fence, Reason.TRANSIENT, message="the network is away", timing=Timing(backoff=(60.0,)))
    reason, why = said()
    assert reason is Reason.TRANSIENT
    assert why.startswith("tried again at ")
    assert why.endswith(" UTC after: the network is away")
    with ledger.factory.begin() as s:
        runs.pause(s, run)
    assert said() == (Reason.USER_PAUSE, "Paused on request.")
    with ledger.factory.begin() as s:
        runs.resume(s, run)
        (turn,) = run_page(s).items
        assert (turn.queue_position, turn.why) == (1, "a worker has a free slot and will take it in a moment")
    with ledger.factory.begin() as s:
        runs.cancel(s, run)
    assert said() == (Reason.USER_CANCEL, "Cancelled on request.")


def test_a_page_of_runs_takes_the_same_number_of_queries_whatever_its_length(ledger: Ledger) -> None:
    asked: list[str] = []

    def count(*args: Any) -> None:
        asked.append(args[2])

    ledger.worker("c", "cpu", slots=9)
    taken = []
    for _ in range(2):
        for _ in range(4):
            ledger.submit()
        ledger.dispatch()
        with ledger.factory.begin() as s:
            engine = s.get_bind()
            event.listen(engine, "before_cursor_execute", count)
            asked.clear()
            run_page(s)
            taken.append(len(asked))
            event.remove(engine, "before_cursor_execute", count)
    assert taken[0] == taken[1] <= 7


def test_a_finished_chat_model_is_promoted_with_its_tokenizer(ledger: Ledger) -> None:
    run = ledger.submit()
    ledger.worker("c", "cpu")
    ledger.worker("g", "gpu")
    for stage in ("data", "tok_train", "tok_eval"):
        ledger.complete(run, stage, "c")
    with pytest.raises(NotFound), ledger.factory.begin() as s:
        promotion.promote(s, "c_none")
    for stage in ("base_train", "base_eval", "mid_train", "chat_eval_mid", "sft", "chat_eval_sft"):
        trains = stage in ("base_train", "mid_train", "sft")
        ledger.complete(run, stage, "g", *([checkpoint(5), checkpoint(9, final=True)] if trains else []))
    ledger.complete(run, "report", "c")
    assert ledger.run(run).status is RunStatus.SUCCEEDED
    with ledger.factory.begin() as s:
        (model,) = views.models(s)
        assert (model.run_id, model.stage, model.step) == (run, "sft", 9)
        assert model.tokenizer.path == "/runs/1/tokenizer"
        saved = {(c.stage, c.step): c for c in views.checkpoints(s, run)}
        promotion.promote(s, saved["base_train", 9].id)
    with ledger.factory.begin() as s:
        assert [m.stage for m in views.models(s)] == ["base_train", "sft"]
        report = views.artifact(s, run, "report", "report")
    assert report is not None
    assert report.path == "/runs/1/report"


@pytest.mark.parametrize(("left_out", "served"), [(["sft"], "mid_train"), (["mid", "sft"], "base_train"), (["mid"], "sft")])
def test_the_last_model_is_promoted_when_stages_are_left_out(ledger: Ledger, left_out: list[str], served: str) -> None:
    run = ledger.submit(**{f"{section}.enabled": False for section in left_out})
    ledger.worker("c", "cpu")
    ledger.worker("g", "gpu")
    with ledger.factory.begin() as s:
        stages = views.run_view(s, run).stages
    for stage in stages:
        saved = [checkpoint(9, final=True)] if stage.name in ("base_train", "mid_train", "sft") else []
        ledger.complete(run, stage.name, {"cpu": "c", "gpu": "g"}[stage.queue], *saved)
    assert ledger.run(run).status is RunStatus.SUCCEEDED
    with ledger.factory.begin() as s:
        assert [model.stage for model in views.models(s)] == [served]


def test_workers_are_idle_busy_draining_or_lost(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    for name in ("idle", "drains", "gone"):
        ledger.worker(name, "cpu")
    with ledger.factory.begin() as s:
        workers.beat(s, "drains", draining=True)
        workers.retire(s, "gone")
        found = {w.id: w for w in views.workers(s)}
    assert {name: w.status for name, w in found.items()} == {"w": "busy", "idle": "idle", "drains": "draining", "gone": "lost"}
    assert found["w"].attempts == [f"{run}/data/1"]
    ledger.finish(claim.fence, Reason.COMPLETED)
    with ledger.factory.begin() as s:
        assert {w.id: w for w in views.workers(s)}["w"].attempts == []


def test_keys_are_stored_as_digests_only(ledger: Ledger) -> None:
    with ledger.factory.begin() as s:
        key, secret = keys.create(s, "laptop")
        found = keys.verify(s, secret)
        assert found is not None
        assert found.id == key.id
        assert secret not in (key.digest, key.id, key.name)
        assert keys.verify(s, secret + "x") is None
        keys.revoke(s, key.id)
        assert keys.verify(s, secret) is None
        with pytest.raises(NotFound):
            keys.revoke(s, "k_none")


def test_the_first_key_is_made_once_in_a_private_file(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "admin.key"

    def ensure() -> str:
        with ledger.factory.begin() as s:
            return keys.ensure_first(s, path).id

    assert len(set(at_once([ensure] * 4))) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    secret = path.read_text().strip()
    with ledger.factory.begin() as s:
        assert keys.verify(s, secret) is not None
    assert [p.name for p in path.parent.iterdir()] == ["admin.key"]
