"""Sweeps over HTTP: which runs they make, what can be asked of them, their table and their curves."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from sqlalchemy import func, select

from controlplane.lifecycle import Reason
from controlplane.models import Run, Sweep
from controlplane.roles import Role
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api
from tests.api.test_access import make
from tests.api.test_bad_input import problem
from tests.waiting import until

GRID: dict[str, Any] = {"recipe": "tiny", "grid": {"model.depth": [2, 4], "base.optim.matrix_lr": [0.01, 0.02]}}
BEFORE_BASE = ("data", "tok_train", "tok_eval")


@pytest.fixture(scope="module")
def worker(api: Api) -> ManualWorker:
    return ManualWorker(api.ledger)


def start(api: Api, body: dict[str, Any], status: int = 201, **headers: str) -> dict[str, Any]:
    answer = api.http.post("/v1/sweeps", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def get(api: Api, sweep: dict[str, Any], **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = api.http.get(f"/v1/sweeps/{sweep['id']}", params=params).json()
    return found


def act(api: Api, sweep: dict[str, Any], action: str, body: Any = None) -> dict[str, Any]:
    answer = api.http.post(f"/v1/sweeps/{sweep['id']}/{action}", json=body)
    assert answer.status_code == 200, answer.text
    return until(lambda: found if (found := get(api, sweep))["pending"] == 0 else {}, f"{action} of every run")


def statuses(sweep: dict[str, Any]) -> list[str]:
    return [run["status"] for run in sweep["items"]]


def made(api: Api) -> list[int | None]:
    with api.ledger() as session:
        return [session.scalar(select(func.count()).select_from(table)) for table in (Sweep, Run)]


def train(worker: ManualWorker, run_id: str, values: list[float]) -> Any:
    """Bring a run to its pretraining, which reports the values 40 steps apart. Returns the claim."""
    for stage in BEFORE_BASE:
        worker.complete(run_id, stage)
    claim = worker.claim(run_id, "base_train")
    for place, value in enumerate(values, start=1):
        worker.report(claim, "metric", step=40 * place, values={"val_bpb": value})
    return claim


def test_a_grid_makes_one_run_for_each_combination(api: Api) -> None:
    body = GRID | {"name": "lr and size", "labels": ["lr"], "priority": 7, "max_hours_per_run": 2}
    sweep = start(api, body)
    assert (sweep["status"], sweep["kind"], sweep["runs"], sweep["recipe"]) == ("RUNNING", "grid", {"QUEUED": 4}, "tiny")
    assert [run["overrides"] for run in sweep["items"]] == [
        {"model.depth": depth, "base.optim.matrix_lr": lr} for depth in (2, 4) for lr in (0.01, 0.02)
    ]
    run = api.http.get(f"/v1/runs/{sweep['items'][2]['run_id']}").json()
    assert run["name"] == "lr and size 3: depth=4, matrix_lr=0.01"
    assert (run["config"]["model"]["depth"], run["config"]["base"]["optim"]["matrix_lr"]) == (4, 0.01)
    assert (run["labels"], run["priority"], run["budget"]["max_hours"], run["sweep_id"]) == (["lr"], 7, 2.0, sweep["id"])
    listed = api.http.get("/v1/runs", params={"sweep": sweep["id"]}).json()["items"]
    assert {run["id"] for run in listed} == {run["run_id"] for run in sweep["items"]}
    assert api.http.get("/v1/sweeps/lr and size").json()["id"] == sweep["id"]
    act(api, sweep, "cancel")


def test_a_ladder_trains_each_depth_for_as_long_as_the_recipe_s_ratio_says(api: Api) -> None:
    plan = api.http.post("/v1/sweeps/plan", json={"recipe": "modern", "depths": [4, 8, 12], "gpu": "H100", "gpus": 2}).json()
    tokens = [run["tokens"] for run in plan["items"]]
    with_head = [12 * (12 * depth * (64 * depth) ** 2 + 32768 * 64 * depth) for depth in (4, 8, 12)]
    assert tokens == [pytest.approx(expected, rel=0.02) for expected in with_head]
    assert plan["gpu_hours"] == pytest.approx(2 * sum(run["hours"] for run in plan["items"]))
    assert plan["usd"] == pytest.approx(plan["gpu_hours"] * 3)
    tiny = api.http.post("/v1/sweeps/plan", json={"recipe": "tiny", "depths": [2, 4]}).json()["items"]
    assert tiny[1]["steps"] > tiny[0]["steps"] > 120  # the recipe's own 120 steps are no rule
    assert tiny[0]["overrides"] == {"model.depth": 2, "base.num_iterations": None, "base.target_flops": None}


def test_the_ablation_of_modern_flips_each_switch_back_alone(api: Api) -> None:
    body = {"recipe": "modern", "overrides": {"model.depth": 8, "base.num_iterations": 640}, "ablate": ["all"]}
    plan = api.http.post("/v1/sweeps/plan", json=body).json()
    overrides = [run["overrides"] for run in plan["items"]]
    assert overrides[0] == {}
    assert all(len(one) == 1 for one in overrides[1:])
    flipped = {path: value for one in overrides for path, value in one.items()}
    assert flipped["model.value_embeds"] is False
    assert flipped["base.packing"] == "stream"
    assert flipped["base.optim.normuon_beta2"] is None
    assert "base.num_iterations" not in flipped
    assert len(flipped) == len(overrides) - 1 > 30
    named = {"recipe": "modern", "ablate": ["model.smear", "base.shuffle"], "overrides": {"model.depth": 8}}
    plan = api.http.post("/v1/sweeps/plan", json=named).json()
    assert [run["overrides"] for run in plan["items"]] == [{}, {"model.smear": False}, {"base.shuffle": True}]


def test_the_same_seed_draws_the_same_samples(api: Api) -> None:
    axes = {
        "base.optim.matrix_lr": {"min": 0.001, "max": 0.1, "log": True},
        "model.depth": {"values": [2, 4]},
        "seed": {"min": 1, "max": 9, "integer": True},
    }

    def drawn(seed: int) -> list[Any]:
        body = {"recipe": "tiny", "random": {"axes": axes, "samples": 20, "seed": seed}}
        return [run["overrides"] for run in api.http.post("/v1/sweeps/plan", json=body).json()["items"]]

    first = drawn(1)
    assert first == drawn(1) != drawn(2)
    assert len({str(one) for one in first}) == 20
    assert all(0.001 <= one["base.optim.matrix_lr"] <= 0.1 and one["seed"] in range(1, 10) for one in first)
    assert sum(one["base.optim.matrix_lr"] < 0.01 for one in first) in range(5, 16)  # half of a logarithmic scale


BAD: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no kind": ({}, "invalid-recipe", "sweep", "give exactly one"),
    "two kinds": ({"grid": {"seed": [1]}, "depths": [2]}, "invalid-recipe", "sweep", "given: grid, depths"),
    "an empty grid": ({"grid": {}}, "invalid-recipe", "grid", "is empty"),
    "an axis without values": ({"grid": {"seed": []}}, "invalid-request", "grid.seed", "at least 1"),
    "a million runs": ({"grid": {f: list(range(100)) for f in ("seed", "x", "y")}}, "invalid-recipe", "grid", "1,000,000 runs"),
    "a value twice": ({"grid": {"seed": [1, 1.0]}}, "invalid-recipe", "grid.seed", "twice"),
    "runs that are the same": ({"grid": {"name": ["a", "b"]}}, "invalid-recipe", "grid", "are the same"),
    "an unknown field": ({"grid": {"model.dept": [2, 4]}}, "invalid-recipe", "model.dept", "unknown field"),
    "one bad value": ({"grid": {"model.depth": [2, 5]}}, "invalid-recipe", "model", "in the run depth=5"),
    "a field and its section": ({"grid": {"model": [{}], "model.depth": [2]}}, "invalid-recipe", "grid", "as well"),
    "a field that is overridden": ({"grid": {"seed": [1]}, "overrides": {"seed": 2}}, "invalid-recipe", "grid", "`overrides`"),
    "no path": ({"grid": {"Model depth": [1]}}, "invalid-request", "grid.Model depth.[key]", "pattern"),
    "a lone surrogate": ({"grid": {"data.tasks": ["\\ud800"]}}, "invalid-request", "grid", "surrogate"),
    "no samples": (
        {"random": {"axes": {"seed": {"min": 1, "max": 2}}, "samples": 0}},
        "invalid-request",
        "random.samples",
        "1",
    ),
    "too few to draw": (
        {"random": {"axes": {"seed": {"min": 1, "max": 2, "integer": True}}, "samples": 9}},
        "invalid-recipe",
        "random.samples",
        "only 2 different",
    ),
    "a range of NaN": (
        {"random": {"axes": {"seed": {"min": float("nan"), "max": 2}}, "samples": 1}},
        "invalid-request",
        "random.axes.seed.min",
        "finite",
    ),
    "an empty range": (
        {"random": {"axes": {"seed": {"min": 2, "max": 2}}, "samples": 1}},
        "invalid-request",
        "random.axes.seed",
        "less than",
    ),
    "a logarithm of 0": (
        {"random": {"axes": {"base.warmup_ratio": {"min": 0, "max": 1, "log": True}}, "samples": 1}},
        "invalid-request",
        "random.axes.base.warmup_ratio",
        "above 0",
    ),
    "a depth twice": ({"depths": [2, 2]}, "invalid-recipe", "depths", "twice"),
    "a ladder of fixed length": (
        {"depths": [2], "overrides": {"base.num_iterations": 5}},
        "invalid-recipe",
        "depths",
        "num_iterations",
    ),
    "no such switch": ({"ablate": ["model.nothing"]}, "invalid-recipe", "ablate", "no field"),
    "nothing to flip": ({"ablate": ["model.head_dim"]}, "invalid-recipe", "ablate", "has its default already"),
    "a switch twice": ({"ablate": ["model.smear", "model.smear"]}, "invalid-recipe", "ablate", "named twice"),
    "all and more": ({"ablate": ["all", "model.smear"]}, "invalid-recipe", "ablate", "stands alone"),
    "an invisible name": ({"depths": [2], "name": "a\u200bb"}, "invalid-request", "name", "invisible"),
    "an unknown request field": ({"depths": [2], "parallel": 3}, "invalid-request", "parallel", "unknown field"),
    "nothing in parallel": ({"depths": [2], "max_parallel": 0}, "invalid-request", "max_parallel", "1"),
    "dollars that cannot be counted": (
        {"depths": [2], "max_usd_per_run": 3},
        "invalid-request",
        "max_usd_per_run",
        "usd_per_hour",
    ),
    "an unknown metric": (
        {"depths": [2], "stop_early": {"metric": "bpb", "after": 0.5}},
        "invalid-recipe",
        "stop_early.metric",
        "val_bpb",
    ),
    "a metric without direction": (
        {"depths": [2], "stop_early": {"metric": "lrm", "after": 0.5}},
        "invalid-recipe",
        "stop_early.metric",
        "direction",
    ),
    "after the end": (
        {"grid": {"seed": [1]}, "stop_early": {"metric": "val_bpb", "after": 120, "unit": "steps"}},
        "invalid-recipe",
        "stop_early.after",
        "before the end",
    ),
    "measured at the end only": (
        {"grid": {"seed": [1]}, "overrides": {"base.eval_every": -1}, "stop_early": {"metric": "val_bpb", "after": 0.5}},
        "invalid-recipe",
        "stop_early.metric",
        "base.eval_every",
    ),
    "keeping all": (
        {"depths": [2], "stop_early": {"metric": "val_bpb", "after": 0.5, "keep": 1}},
        "invalid-request",
        "stop_early.keep",
        "0.9",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("path", ["/v1/sweeps", "/v1/sweeps/plan"])
def test_a_sweep_without_a_meaning_is_refused_by_field_and_makes_nothing(api: Api, path: str, case: str) -> None:
    body, kind, field, words = BAD[case]
    before = made(api)
    text = json.dumps({"recipe": "tiny"} | body).replace("\\\\ud800", "\\ud800")
    found = problem(api.http.post(path, content=text, headers={"Content-Type": "application/json"}), kind)
    assert field in [error["field"] for error in found["errors"]], found
    assert words in found["detail"]
    assert made(api) == before


def test_only_so_many_runs_go_on_at_once(api: Api, worker: ManualWorker) -> None:
    sweep = start(api, {"recipe": "tiny", "grid": {"seed": [1, 2, 3, 4]}, "max_parallel": 2})
    ids = [run["run_id"] for run in sweep["items"]]

    def held() -> list[bool]:
        return [run["held"] for run in get(api, sweep)["items"]]

    assert held() == [False, False, True, True]
    waiting = api.http.get(f"/v1/runs/{ids[2]}").json()
    assert (waiting["status"], waiting["detail"]) == ("QUEUED", "waits for its turn in the sweep")
    assert sweep["id"] in waiting["stages"][0]["waiting"]["why"]
    claims = [worker.claim(run_id, "data") for run_id in ids[:2]]
    api.http.post(f"/v1/runs/{ids[1]}/cancel")
    worker.finish(claims[1], Reason.USER_CANCEL)
    until(lambda: held() == [False, False, False, True], "the third run")
    worker.claim(ids[2], "data")
    assert api.http.patch(f"/v1/sweeps/{sweep['id']}", json={"max_parallel": 3}).json()["max_parallel"] == 3
    until(lambda: held() == [False] * 4, "the fourth run")
    act(api, sweep, "cancel", {"mode": "now"})


def test_a_sweep_is_paused_resumed_cancelled_archived_and_deleted_with_its_runs(api: Api, worker: ManualWorker) -> None:
    sweep = start(api, {"recipe": "tiny", "grid": {"seed": [1, 2, 3]}, "name": "whole", "max_parallel": 2})
    first = sweep["items"][0]["run_id"]
    claim = worker.claim(first, "data")
    paused = act(api, sweep, "pause")
    assert statuses(paused) == ["STOPPING", "PAUSED", "PAUSED"]
    worker.finish(claim, Reason.USER_PAUSE)
    assert get(api, sweep)["status"] == "PAUSED"
    resumed = act(api, sweep, "resume")
    assert (resumed["status"], statuses(resumed)[1:]) == ("RUNNING", ["QUEUED", "QUEUED"])
    assert [run["held"] for run in resumed["items"]] == [False, False, True]
    there = f"/v1/sweeps/{sweep['id']}"
    assert "cancel it first" in problem(api.http.patch(there, json={"archived": True}), "conflict")["detail"]
    assert "cancel it first" in problem(api.http.delete(there), "conflict")["detail"]
    cancelled = act(api, sweep, "cancel")
    assert (cancelled["status"], statuses(cancelled)) == ("FINISHED", ["CANCELLED"] * 3)
    assert cancelled["finished_at"] is not None
    assert cancelled["stopped_early"] == 0
    for action in ("pause", "resume", "cancel"):
        assert "have ended" in problem(api.http.post(f"{there}/{action}"), "conflict")["detail"]
    assert api.http.patch(there, json={"archived": True, "name": "old"}).json()["archived_at"] is not None
    assert sweep["id"] not in [s["id"] for s in api.http.get("/v1/sweeps").json()["items"]]
    assert [s["id"] for s in api.http.get("/v1/sweeps", params={"archived": True}).json()["items"]] == [sweep["id"]]
    assert first not in [run["id"] for run in api.http.get("/v1/runs", params={"sweep": sweep["id"]}).json()["items"]]
    fork = api.http.post(f"/v1/runs/{first}/fork", json={}).json()
    assert fork["sweep_id"] is None
    assert fork["id"] in problem(api.http.delete(there), "conflict")["detail"]
    assert api.http.get(f"/v1/runs/{first}").status_code == 200
    api.http.post(f"/v1/runs/{fork['id']}/cancel")
    api.http.delete(f"/v1/runs/{fork['id']}")
    assert api.http.delete(there).status_code == 200
    problem(api.http.get(there), "sweep-not-found")
    problem(api.http.get(f"/v1/runs/{first}"), "run-not-found")


def test_runs_that_fall_behind_are_stopped_and_keep_their_checkpoints(api: Api, worker: ManualWorker) -> None:
    rule = {"metric": "val_bpb", "after": 0.3, "keep": 0.5}
    sweep = start(api, {"recipe": "tiny", "grid": {"seed": [1, 2, 3, 4]}, "stop_early": rule})
    ids = [run["run_id"] for run in sweep["items"]]
    good = train(worker, ids[0], [2.0])
    until(lambda: get(api, sweep)["items"][0]["rungs"] == 1, "the first comparison")
    assert get(api, sweep)["items"][0]["status"] == "RUNNING"  # the first at a rung always goes on
    bad = train(worker, ids[1], [])
    worker.report(bad, "checkpoint", step=40, path="/c/40", sha256="cd" * 32, bytes=1, final=False, val_bpb=3.0)
    worker.report(bad, "metric", step=40, values={"val_bpb": 3.0})
    until(lambda: get(api, sweep)["items"][1]["status"] == "STOPPING", "the bad run to be stopped")
    worker.finish(bad, Reason.STOPPED_EARLY)
    stopped = api.http.get(f"/v1/runs/{ids[1]}").json()
    assert (stopped["status"], stopped["detail"][:13]) == ("CANCELLED", "Stopped early")
    base = next(stage for stage in stopped["stages"] if stage["name"] == "base_train")
    assert (base["status"], base["reason"]) == ("CANCELLED", "STOPPED_EARLY")
    assert [c["step"] for c in api.http.get(f"/v1/runs/{ids[1]}/checkpoints").json()["items"]] == [40]
    events = api.http.get(f"/v1/runs/{ids[1]}/events", params={"kinds": "sweep_compared"}).json()["items"]
    assert [e["data"] for e in events] == [
        {
            "metric": "val_bpb",
            "rung": 0,
            "step": 40,
            "value": 3.0,
            "best": 2.0,
            "runs": 2,
            "keep": 0.5,
            "goes_on": False,
        }
    ]
    nan = train(worker, ids[2], [])
    worker.report(nan, "metric", step=40, values={"val_bpb": "nan"})
    until(lambda: get(api, sweep)["items"][2]["status"] == "STOPPING", "the run without a finite value to be stopped")
    worker.report(good, "metric", step=80, values={"val_bpb": 9.0})  # the second rung, at 0.6
    until(lambda: get(api, sweep)["items"][0]["rungs"] == 2, "the second comparison")
    table = get(api, sweep)
    assert [run["stopped_early"] for run in table["items"]] == [False, True, True, False]
    assert table["stopped_early"] == 2
    assert table["items"][0]["status"] == "RUNNING"
    act(api, sweep, "cancel", {"mode": "now"})


def test_the_table_and_the_curves_say_what_each_run_reached_and_used(api: Api, worker: ManualWorker) -> None:
    sweep = start(api, {"recipe": "tiny", "grid": {"model.depth": [2, 4]}})
    run = sweep["items"][0]["run_id"]
    claim = train(worker, run, [2.5, 2.0, 2.25])
    worker.report(claim, "metric", step=119, values={"loss": 1.5, "val_bpb": "inf"})
    row, empty = get(api, sweep)["items"]
    assert (row["best"], row["last"], row["step"], row["tokens"]) == (2.0, 2.25, 120, 120 * 4096)
    assert (empty["best"], empty["step"], empty["hours"], empty["tokens"]) == (None, None, 0.0, None)
    assert row["hours"] > row["gpu_hours"] > 0
    assert get(api, sweep, metric="loss")["items"][0]["best"] == 1.5
    curves = api.http.get(f"/v1/sweeps/{sweep['id']}/curves").json()
    assert (curves["metric"], curves["stage"], curves["better"]) == ("val_bpb", "base_train", "lower")
    (series,) = curves["series"]
    assert (series["run_id"], series["overrides"]) == (run, {"model.depth": 2})
    points = series["points"]
    assert [(p["step"], p["last"], p["nonfinite"]) for p in points] == [
        (40, 2.5, 0),
        (80, 2.0, 0),
        (119, None, 1),
        (120, 2.25, 0),
    ]
    assert [p["tokens"] for p in points] == [p["step"] * 4096 for p in points]
    assert 0 <= points[0]["gpu_hours"] <= points[1]["gpu_hours"] < 0.01
    text = api.http.get(f"/v1/sweeps/{sweep['id']}", headers={"Accept": "text/csv"})
    assert text.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert [(r["no"], r["model.depth"], r["best"]) for r in rows] == [("1", "2", "2.0"), ("2", "4", "")]
    text = api.http.get(f"/v1/sweeps/{sweep['id']}/curves", headers={"Accept": "text/csv"})
    assert [r["step"] for r in csv.DictReader(io.StringIO(text.text))] == ["40", "80", "119", "120"]
    for metric, stage in (("lrm", None), ("nothing", None), ("val_bpb", "sft")):
        asked = {"metric": metric} | ({"stage": stage} if stage else {})
        problem(api.http.get(f"/v1/sweeps/{sweep['id']}/curves", params=asked), "invalid-request")
    act(api, sweep, "cancel", {"mode": "now"})


def test_a_repeated_submission_is_one_sweep(api: Api) -> None:
    first = start(api, GRID, **{"Idempotency-Key": "one"})
    before = made(api)
    assert start(api, GRID, 200, **{"Idempotency-Key": "one"})["id"] == first["id"]
    assert made(api) == before
    key = {"Idempotency-Key": "one"}
    problem(api.http.post("/v1/sweeps", json=GRID | {"priority": 1}, headers=key), "idempotency-key-reused")
    problem(api.http.post("/v1/runs", json={"recipe": "tiny"}, headers=key), "idempotency-key-reused")
    act(api, first, "cancel")


def test_sweeps_are_listed_page_by_page_and_belong_to_a_project(api: Api) -> None:
    body = {"recipe": "tiny", "depths": [2]}
    ids = [start(api, body)["id"] for _ in range(3)]
    page = api.http.get("/v1/sweeps", params={"limit": 2}).json()
    assert [s["id"] for s in page["items"]] == ids[:0:-1]
    rest = api.http.get("/v1/sweeps", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert rest["items"][0]["id"] == ids[0]
    problem(api.http.get("/v1/sweeps", params={"cursor": "mine"}), "bad-cursor")
    with make(api, Role.ADMIN, "elsewhere") as stranger:
        assert stranger.get("/v1/sweeps").json()["items"] == []
        for method, path in (("GET", ""), ("GET", "/curves"), ("POST", "/cancel"), ("PATCH", ""), ("DELETE", "")):
            answer = stranger.request(method, f"/v1/sweeps/{ids[0]}{path}", json={} if method == "PATCH" else None)
            problem(answer, "sweep-not-found")
    for sweep_id in ids:
        api.http.post(f"/v1/sweeps/{sweep_id}/cancel")
    trail = api.http.get("/v1/audit", params={"limit": 1}).json()["items"][0]
    assert (trail["action"], trail["target"]) == ("cancel_sweep", {"sweep_id": ids[-1]})


def test_a_spreadsheet_takes_no_name_for_a_formula(api: Api) -> None:
    sweep = start(api, GRID | {"name": '=HYPERLINK("http://elsewhere")'})
    text = api.http.get(f"/v1/sweeps/{sweep['id']}", headers={"Accept": "text/csv"}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"].partition(" ")[0] for row in rows] == ['\'=HYPERLINK("http://elsewhere")'] * 4
    act(api, sweep, "cancel")
