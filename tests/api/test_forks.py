"""Fork, extend, edit and delete runs; pin, demote and delete checkpoints, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import claims
from controlplane.lifecycle import Reason
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api
from tests.api.test_bad_input import problem

BEFORE = ("data", "tok_train", "tok_eval", "base_train", "base_eval", "mid_train", "chat_eval_mid")


@pytest.fixture(scope="module")
def worker(api: Api) -> ManualWorker:
    return ManualWorker(api.ledger)


@pytest.fixture(scope="module")
def failed(api: Api, worker: ManualWorker) -> str:
    """A run whose sft failed."""
    run_id = str(api.http.post("/v1/runs", json={"recipe": "tiny", "name": "old"}).json()["id"])
    for stage in BEFORE:
        worker.complete(run_id, stage)
    worker.finish(worker.claim(run_id, "sft"), Reason.BAD_INPUT)
    return run_id


def post(api: Api, path: str, body: Any, status: int = 201) -> dict[str, Any]:
    answer = api.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def done(run: dict[str, Any]) -> list[str]:
    return [s["name"] for s in run["stages"] if s["status"] == "SUCCEEDED"]


def checkpoint(api: Api, run_id: str, stage: str) -> dict[str, Any]:
    items = api.http.get(f"/v1/runs/{run_id}/checkpoints").json()["items"]
    found: dict[str, Any] = next(c for c in items if c["stage"] == stage)
    return found


def test_a_fork_runs_only_what_its_overrides_change(api: Api, worker: ManualWorker, failed: str) -> None:
    run = post(api, f"/v1/runs/{failed}/fork", {"overrides": {"sft.num_iterations": 7}, "name": "new"})
    assert (run["name"], run["forked_from"], run["config"]["sft"]["num_iterations"]) == ("new", failed, 7)
    assert done(run) == list(BEFORE)
    old = api.http.get(f"/v1/runs/{failed}").json()
    assert [s["artifacts"] for s in run["stages"][:7]] == [s["artifacts"] for s in old["stages"][:7]]
    claim = worker.claim(run["id"], "sft")
    assert claim.config["sft"]["num_iterations"] == 7
    assert claim.inputs["model"].path == f"/artifacts/{failed}/mid_train/model"
    assert (claim.fence.attempt_no, claim.checkpoints) == (1, ())


def test_a_fork_with_other_conversations_fetches_them_and_keeps_the_pretrained_model(api: Api, worker: ManualWorker) -> None:
    """Conversations behind a URL are fetched by the data stage, which runs again. Only what reads them does so too."""
    mixture = [{"jsonl": "http://127.0.0.1:9/old.jsonl"}, {"task": "sums", "size": 100}]
    old = post(api, "/v1/runs", {"recipe": "tiny", "overrides": {"sft.train": mixture}})["id"]
    for stage in BEFORE:
        worker.complete(old, stage)
    other = [{"jsonl": "http://127.0.0.1:9/new.jsonl"}, {"task": "sums", "size": 100}]
    run = post(api, f"/v1/runs/{old}/fork", {"overrides": {"sft.train": other}})
    assert done(run) == ["tok_train", "tok_eval", "base_train", "base_eval"]
    claim = worker.claim(run["id"], "data")
    assert claim.config["own_files"] == ["http://127.0.0.1:9/new.jsonl"]
    for output in claim.outputs:
        worker.report(claim, "artifact", name=output, path=f"/artifacts/{run['id']}/data/{output}", sha256="ab" * 32)
    worker.finish(claim)
    claim = worker.claim(run["id"], "mid_train")
    assert claim.inputs["tasks"].path == f"/artifacts/{run['id']}/data/tasks"
    assert claim.inputs["model"].path == f"/artifacts/{old}/base_train/model"
    # A file of this machine is read by the stages that train on it; other text is another run.
    local = [{"task": "sums", "size": 200}]
    assert done(post(api, f"/v1/runs/{old}/fork", {"overrides": {"sft.train": local}})) == done(run)
    body = {"overrides": {"sft.train": other, "data.source.max_chars": 7_000_000}}
    assert done(post(api, f"/v1/runs/{old}/fork", body)) == []


def test_a_fork_inherits_priority_and_budget_unless_it_names_others(api: Api, worker: ManualWorker) -> None:
    terms = {"priority": 7, "max_usd": 5.0, "max_hours": 2.5, "usd_per_hour": 3.0}
    old = post(api, "/v1/runs", {"recipe": "tiny", **terms})["id"]
    for stage in BEFORE[:4]:
        worker.complete(old, stage)
    same = post(api, f"/v1/runs/{old}/fork", {})
    assert terms_of(same) == terms
    changed = post(api, f"/v1/runs/{old}/fork", {"priority": 0, "max_usd": 9.0})
    assert terms_of(changed) == terms | {"priority": 0, "max_usd": 9.0}
    longer = post(api, f"/v1/runs/{old}/extend", {"stage": "base_train", "steps": 90, "max_hours": 8.0})
    assert terms_of(longer) == terms | {"max_hours": 8.0}
    plain = post(api, "/v1/runs", {"recipe": "tiny"})["id"]
    found = problem(api.http.post(f"/v1/runs/{plain}/fork", json={"max_usd": 1.0}), "invalid-request")
    assert "give usd_per_hour" in found["errors"][0]["message"]


def test_a_fork_is_planned(api: Api, failed: str) -> None:
    run = post(api, f"/v1/runs/{failed}/fork", {"overrides": {"sft.num_iterations": 7}})
    stages = {s["stage"]: s for s in api.http.get(f"/v1/runs/{run['id']}/comparison").json()["stages"]}
    assert stages["sft"]["planned_steps"] == 7


def terms_of(run: dict[str, Any]) -> dict[str, Any]:
    names = ("max_usd", "max_hours", "usd_per_hour")
    return {"priority": run["priority"], **{name: run["budget"][name] for name in names}}


def test_a_fork_from_a_stage_runs_it_again_with_all_that_follow_from_it(api: Api, failed: str) -> None:
    run = post(api, f"/v1/runs/{failed}/fork", {"from_stage": "base_train"})
    assert done(run) == ["data", "tok_train", "tok_eval"]
    run = post(api, f"/v1/runs/{failed}/fork", {"overrides": {"seed": 5}})
    assert done(run) == []
    found = problem(api.http.post(f"/v1/runs/{failed}/fork", json={"from_stage": "rl"}), "stage-not-found")
    assert "base_train" in found["detail"]


def test_a_fork_from_a_checkpoint_resumes_from_it_and_keeps_it(api: Api, worker: ManualWorker, failed: str) -> None:
    start = checkpoint(api, failed, "base_train")
    body = {"from_checkpoint": start["id"], "overrides": {"base.num_iterations": 90}}
    run = post(api, f"/v1/runs/{failed}/fork", body)
    assert done(run) == ["data", "tok_train", "tok_eval"]
    claim = worker.claim(run["id"], "base_train")
    assert [(c.step, c.artifact.path) for c in claim.checkpoints] == [(60, start["path"])]
    assert checkpoint(api, failed, "base_train")["pinned_at"] is not None
    misfit = {"from_checkpoint": start["id"], "overrides": {"seed": 5}}
    assert "tok_train would run again" in problem(api.http.post(f"/v1/runs/{failed}/fork", json=misfit), "conflict")["detail"]
    both = {"from_checkpoint": start["id"], "from_stage": "sft"}
    problem(api.http.post(f"/v1/runs/{failed}/fork", json=both), "invalid-request")
    problem(api.http.post(f"/v1/runs/{failed}/fork", json={"from_checkpoint": "c_00000000000000ff"}), "checkpoint-not-found")


def test_extending_a_stage_trains_it_for_more_steps(api: Api, worker: ManualWorker, failed: str) -> None:
    run = post(api, f"/v1/runs/{failed}/extend", {"stage": "mid_train", "steps": 100})
    assert run["config"]["mid"]["num_iterations"] == 100
    assert done(run) == ["data", "tok_train", "tok_eval", "base_train", "base_eval"]
    assert [c.step for c in worker.claim(run["id"], "mid_train").checkpoints] == [60]
    for body, field in (({"stage": "mid_train", "steps": 60}, "steps"), ({"stage": "data", "steps": 9}, "stage")):
        found = problem(api.http.post(f"/v1/runs/{failed}/extend", json=body), "invalid-request")
        assert [e["field"] for e in found["errors"]] == [field]


def test_a_repeated_fork_is_one_run_and_another_body_is_refused(api: Api, failed: str) -> None:
    def send(**body: Any) -> Any:
        return api.http.post(f"/v1/runs/{failed}/fork", json=body, headers={"Idempotency-Key": "fork"})

    first, second = send(name="once"), send(name="once")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    problem(send(name="twice"), "idempotency-key-reused")


def test_notes_that_somebody_has_changed_meanwhile_are_not_replaced(api: Api) -> None:
    there = f"/v1/runs/{post(api, '/v1/runs', {'recipe': 'tiny'})['id']}"

    def write(notes: str, before: str) -> Any:
        return api.http.patch(there, json={"notes": notes, "notes_before": before, "labels": [notes]})

    assert write("one", "").json()["notes"] == "one"
    assert "changed meanwhile" in problem(write("two", ""), "conflict")["detail"]
    assert api.http.get(there).json()["labels"] == ["one"], "nothing of the request is done"
    assert write("one", "").status_code == 200, "the same notes twice"
    assert write("two", "one").json()["notes"] == "two"


def test_a_run_is_described_archived_and_deleted(api: Api, worker: ManualWorker) -> None:
    run = post(api, "/v1/runs", {"recipe": "tiny"})
    there = f"/v1/runs/{run['id']}"
    edited = api.http.patch(there, json={"name": "kept", "notes": "good", "labels": ["b", "a", "a"]}).json()
    assert (edited["name"], edited["notes"], edited["labels"]) == ("kept", "good", ["a", "b"])
    listed = api.http.get("/v1/runs", params=[("label", "a"), ("label", "b")]).json()["items"]
    assert [r["id"] for r in listed] == [run["id"]]
    assert "cancel it first" in problem(api.http.patch(there, json={"archived": True}), "conflict")["detail"]
    problem(api.http.delete(there), "conflict")
    post(api, f"{there}/cancel", None, 200)
    assert api.http.patch(there, json={"archived": True}).json()["archived_at"] is not None
    assert api.http.get("/v1/runs", params={"label": "a"}).json()["items"] == []
    assert [r["id"] for r in api.http.get("/v1/runs", params={"archived": True}).json()["items"]] == [run["id"]]
    assert api.http.delete(there).status_code == 200
    problem(api.http.get(there), "run-not-found")
    assert api.http.get("/v1/runs", params={"archived": True}).json()["items"] == []


def test_what_is_needed_is_not_deleted(api: Api, worker: ManualWorker) -> None:
    run = post(api, "/v1/runs", {"recipe": "tiny"})
    there = f"/v1/runs/{run['id']}"
    for stage in BEFORE[:3]:
        worker.complete(run["id"], stage)
    claim = worker.claim(run["id"], "base_train")
    worker.report(claim, "checkpoint", step=5, path="/c/5", sha256="cd" * 32, bytes=1, final=False, val_bpb=1.0)
    saved = checkpoint(api, run["id"], "base_train")["id"]
    assert "running" in problem(api.http.delete(f"/v1/checkpoints/{saved}"), "conflict")["detail"]
    post(api, f"{there}/cancel", None, 200)
    worker.finish(claim, Reason.USER_CANCEL)
    post(api, f"/v1/checkpoints/{saved}/pin", None, 200)
    assert "pinned" in problem(api.http.delete(there), "conflict")["detail"]
    assert post(api, f"/v1/checkpoints/{saved}/unpin", None, 200)["pinned_at"] is None
    post(api, f"/v1/checkpoints/{saved}/promote", None, 200)
    assert "promoted" in problem(api.http.delete(f"/v1/checkpoints/{saved}"), "conflict")["detail"]
    assert post(api, f"/v1/checkpoints/{saved}/demote", None, 200)["promoted_at"] is None
    fork = post(api, f"{there}/fork", {})
    assert fork["id"] in problem(api.http.delete(there), "conflict")["detail"]
    post(api, f"/v1/runs/{fork['id']}/cancel", None, 200)
    assert api.http.delete(f"/v1/runs/{fork['id']}").status_code == 200
    assert api.http.delete(f"/v1/checkpoints/{saved}").status_code == 200
    assert api.http.get(f"{there}/checkpoints").json()["items"] == []
    assert api.http.delete(there).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"labels": ["a b"]}, "labels.0"),
        ({"notes": "x" * 20_001}, "notes"),
        ({"archived": 1}, "archived"),
        ({"status": "SUCCEEDED"}, "status"),
    ],
)
def test_a_bad_edit_names_the_field(api: Api, failed: str, body: Any, field: str) -> None:
    found = problem(api.http.patch(f"/v1/runs/{failed}", json=body), "invalid-request")
    assert [e["field"] for e in found["errors"]] == [field]


def test_claims_of_a_fork_read_no_other_run_s_checkpoints(api: Api, worker: ManualWorker, failed: str) -> None:
    run = post(api, f"/v1/runs/{failed}/fork", {"from_stage": "mid_train"})
    claim: claims.Claim = worker.claim(run["id"], "mid_train")
    assert claim.checkpoints == ()
