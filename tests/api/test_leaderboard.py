"""The leaderboard: finished runs by their figures, with published models between them."""

from __future__ import annotations

import pytest

from nanochat.report.published import PUBLISHED, TIME_TO_GPT2
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api
from tests.api.test_bad_input import problem


@pytest.fixture(scope="module")
def worker(api: Api) -> ManualWorker:
    return ManualWorker(api.ledger)


def finished(api: Api, worker: ManualWorker, name: str, *, core: float, bpb: float, **overrides: object) -> str:
    body = {"recipe": "tiny", "name": name, "overrides": {"chat_eval.enabled": False, "tok_eval.enabled": False, **overrides}}
    run = api.http.post("/v1/runs", json=body).json()
    for stage in run["stages"]:
        if stage["name"] == "base_eval":
            claim = worker.claim(run["id"], "base_eval")
            worker.report(claim, "eval", name="core", values={"core": core})
            worker.report(claim, "eval", name="bpb", values={"train": bpb - 0.1, "val": bpb})
            worker.report(claim, "artifact", name="results", path="/r", sha256="ab" * 32)
            worker.finish(claim)
        else:
            worker.complete(run["id"], stage["name"])
    return str(run["id"])


def test_finished_runs_stand_between_published_models(api: Api, worker: ManualWorker) -> None:
    good = finished(api, worker, "good", core=0.2, bpb=0.9)
    bad = finished(api, worker, "<i>bad</i>", core=0.01, bpb=2.5, **{"base_eval.core_max_per_task": None})
    running = api.http.post("/v1/runs", json={"recipe": "tiny"}).json()["id"]
    rows = api.http.get("/v1/leaderboard").json()["items"]
    assert running not in {row["run_id"] for row in rows}
    cores = [row["core"] for row in rows if row["core"] is not None]
    assert cores == sorted(cores, reverse=True)
    by_name = {row["name"]: row for row in rows}
    assert len([row for row in rows if row["reference"]]) == len(PUBLISHED) + len(TIME_TO_GPT2)
    assert all(row["source"] for row in rows if row["reference"])
    assert by_name["autoresearch round 2, mean of 5 runs"]["hours"] == 1.65
    found = by_name["good"]
    assert (found["run_id"], found["val_bpb"], found["core"], found["reference"]) == (good, 0.9, 0.2, False)
    assert (found["core_estimate"], by_name["<i>bad</i>"]["core_estimate"]) == (True, False)
    assert found["hours"] > 0
    assert found["params_exact"] > 0
    assert found["tokens"] > 0
    models = {model["id"]: model for model in api.http.get("/v1/models").json()["items"]}
    assert models[found["checkpoint_id"]]["run_id"] == good
    assert models[found["checkpoint_id"]]["stage"] == "sft"
    assert found["promoted"]
    ours = api.http.get("/v1/leaderboard", params={"sort": "val_bpb", "references": False}).json()["items"]
    assert [row["run_id"] for row in ours] == [good, bad]
    first = api.http.get("/v1/leaderboard", params={"sort": "-hours", "limit": 1, "references": False}).json()["items"]
    assert len(first) == 1
    assert first[0]["hours"] >= min(row["hours"] for row in ours)
    with api.client() as client:
        assert [row.run_id for row in client.leaderboard("val_bpb", references=False).items] == [good, bad]
    api.http.patch(f"/v1/runs/{bad}", json={"archived": True})
    assert bad not in {row["run_id"] for row in api.http.get("/v1/leaderboard").json()["items"]}


def test_an_unknown_order_is_refused(api: Api) -> None:
    assert "sort" in str(problem(api.http.get("/v1/leaderboard", params={"sort": "luck"}), "invalid-request"))
