"""Pause, resume, cancel and retry over HTTP, in the terms of docs/lifecycle.md."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import claims
from controlplane.lifecycle import Reason
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api
from tests.api.test_bad_input import problem


@pytest.fixture(scope="module")
def worker(api: Api) -> ManualWorker:
    return ManualWorker(api.ledger)


def submit(api: Api) -> str:
    return str(api.http.post("/v1/runs", json={"recipe": "tiny"}).json()["id"])


def act(api: Api, run_id: str, action: str, body: Any = None) -> dict[str, Any]:
    answer = api.http.post(f"/v1/runs/{run_id}/{action}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def status(api: Api, run_id: str, stage: str) -> str:
    stages = api.http.get(f"/v1/runs/{run_id}").json()["stages"]
    return next(str(s["status"]) for s in stages if s["name"] == stage)


def stop_of(worker: ManualWorker, claim: claims.Claim) -> Reason | None:
    """What the supervisor is told when it renews its lease."""
    with worker.ledger.begin() as session:
        return claims.renew(session, claim.fence).stop


def test_a_paused_run_frees_its_worker_and_resumes_with_a_new_attempt(api: Api, worker: ManualWorker) -> None:
    run_id = submit(api)
    claim = worker.claim(run_id, "data")
    assert act(api, run_id, "pause")["status"] == "STOPPING"
    assert stop_of(worker, claim) is Reason.USER_PAUSE
    worker.finish(claim, Reason.USER_PAUSE)
    assert api.http.get(f"/v1/runs/{run_id}").json()["status"] == "PAUSED"
    assert act(api, run_id, "pause")["status"] == "PAUSED"  # a second request changes nothing
    resumed = act(api, run_id, "resume")
    assert (resumed["status"], resumed["stages"][0]["status"]) == ("RUNNING", "QUEUED")
    assert worker.claim(run_id, "data").fence.attempt_no == 2


def test_a_run_that_waits_is_paused_at_once(api: Api) -> None:
    run_id = submit(api)
    assert act(api, run_id, "pause")["status"] == "PAUSED"
    assert act(api, run_id, "resume")["status"] == "QUEUED"


def test_a_failed_run_goes_on_after_a_retry(api: Api, worker: ManualWorker) -> None:
    run_id = submit(api)
    worker.finish(worker.claim(run_id, "data"), Reason.BAD_INPUT)
    assert api.http.get(f"/v1/runs/{run_id}").json()["status"] == "FAILED"
    problem(api.http.post(f"/v1/runs/{run_id}/resume"), "conflict")
    retried = act(api, run_id, "retry")
    assert (retried["stages"][0]["status"], retried["finished_at"]) == ("QUEUED", None)
    worker.complete(run_id, "data")
    assert status(api, run_id, "data") == "SUCCEEDED"


def test_one_stage_can_be_retried_and_a_back_off_is_cut_short(api: Api, worker: ManualWorker) -> None:
    run_id = submit(api)
    worker.finish(worker.claim(run_id, "data"), Reason.TRANSIENT)
    assert status(api, run_id, "data") == "BACKOFF"
    found = problem(api.http.post(f"/v1/runs/{run_id}/retry", json={"stage": "tok_train"}), "conflict")
    assert "tok_train" in found["detail"]
    found = problem(api.http.post(f"/v1/runs/{run_id}/retry", json={"stage": "no_such"}), "stage-not-found")
    assert "base_train" in found["detail"]
    assert act(api, run_id, "retry", {"stage": "data"})["stages"][0]["status"] == "QUEUED"
    found = problem(api.http.post(f"/v1/runs/{run_id}/retry"), "conflict")
    assert "no failed stage" in found["detail"]


def test_a_graceful_cancel_can_be_made_an_immediate_one(api: Api, worker: ManualWorker) -> None:
    run_id = submit(api)
    claim = worker.claim(run_id, "data")
    assert act(api, run_id, "cancel")["status"] == "STOPPING"
    assert stop_of(worker, claim) is Reason.USER_CANCEL
    act(api, run_id, "cancel", {"mode": "now"})
    assert stop_of(worker, claim) is Reason.USER_ABORT
    act(api, run_id, "cancel", {"mode": "graceful"})  # does not soften it
    assert stop_of(worker, claim) is Reason.USER_ABORT
    worker.finish(claim, Reason.USER_ABORT)
    assert api.http.get(f"/v1/runs/{run_id}").json()["status"] == "CANCELLED"
    for action in ("pause", "resume", "retry"):
        assert run_id in problem(api.http.post(f"/v1/runs/{run_id}/{action}"), "conflict")["detail"]


@pytest.mark.parametrize(
    ("action", "body", "field"),
    [("cancel", {"mode": "soon"}, "mode"), ("cancel", {"now": True}, "now"), ("retry", {"stage": "\0"}, "stage")],
)
def test_a_bad_request_names_the_field_and_changes_nothing(api: Api, action: str, body: Any, field: str) -> None:
    run_id = submit(api)
    found = problem(api.http.post(f"/v1/runs/{run_id}/{action}", json=body), "invalid-request")
    assert [e["field"] for e in found["errors"]] == [field]
    assert api.http.get(f"/v1/runs/{run_id}").json()["status"] == "QUEUED"
