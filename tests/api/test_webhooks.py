"""Webhooks from the request that makes one to the receiver: a real API, a real Postgres, a real HTTP server."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from controlplane import deliveries, runs, webhooks
from controlplane.db import SessionFactory
from controlplane.keys import secret_in
from controlplane.roles import Role
from controlplane.webhook_kinds import DeliveryStatus
from controlplane.webhook_models import Webhook, WebhookDelivery
from services.api.webhooks.signing import Secrets
from services.logs import WARNINGS_ONLY
from services.standalone.valkey import Valkey
from tests.api.receiver import Receiver, receiving, status
from tests.api.server import Api, serving
from tests.api.test_access import ROUTES, address
from tests.api.test_access import make as make_key
from tests.api.test_bad_input import problem
from tests.api.test_process import ROOT, environment
from tests.controlplane.ledger import Ledger
from tests.controlplane.test_webhooks import make as make_hook
from tests.waiting import until


@pytest.fixture(scope="module")
def api(module_database_url: str, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    home = tmp_path_factory.mktemp("home")
    with serving(module_database_url, valkey.url, home, webhook_networks="127.0.0.0/8") as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def make(api: Api, receiver: Receiver, **more: Any) -> Any:
    body = {"name": "a hook", "url": f"http://127.0.0.1:{receiver.port}/hook?token=t0ken", **more}
    answer = api.http.post("/v1/webhooks", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def page(api: Api, hook: Any, **params: Any) -> list[Any]:
    answer = api.http.get(f"/v1/webhooks/{hook['id']}/deliveries", params=params)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def due_now(api: Api) -> None:
    """Do not wait for the back-off."""
    with api.ledger.begin() as session:
        session.execute(update(WebhookDelivery).values(next_try_at=func.clock_timestamp()))


def test_what_happens_to_a_run_reaches_the_receiver_in_order_and_signed(api: Api, receiver: Receiver) -> None:
    hook = make(api, receiver, kinds=["run_status", "stage_status"])
    run_id = api.client().submit("tiny", name="watched").id
    api.http.post(f"/v1/runs/{run_id}/pause")
    api.http.post(f"/v1/runs/{run_id}/resume")
    api.http.post(f"/v1/runs/{run_id}/cancel")

    def bodies() -> list[Any]:
        return [json.loads(request.body) for request in list(receiver.arrived)]

    until(
        lambda: [b for b in bodies() if b["data"]["details"].get("to") == "CANCELLED" and b["type"] == "run_status"], "the end"
    )
    events = api.http.get(f"/v1/runs/{run_id}/events").json()["items"]
    wanted = [e["id"] for e in events if e["kind"] in ("run_status", "stage_status")]
    until(lambda: len(receiver.arrived) >= len(wanted), "every event")
    assert [b["data"]["event_id"] for b in bodies()] == wanted
    assert {b["data"]["run"]["name"] for b in bodies()} == {"watched"}
    for request in receiver.arrived:
        Verifier(hook["secret"]).verify(request.body, dict(request.headers))
        assert request.path == "/hook?token=t0ken"
    assert len(set(receiver.ids)) == len(receiver.ids)
    until(lambda: all(d["status"] == "DELIVERED" for d in page(api, hook)), "the outcomes")
    seen = api.http.get(f"/v1/webhooks/{hook['id']}").json()
    assert (seen["last_status"], seen["last_error"], seen["waiting"], seen["failing_since"]) == (204, "", 0, None)


def test_a_ping_is_sent_once_and_says_how_it_ended(api: Api, receiver: Receiver) -> None:
    hook = make(api, receiver, format="slack")
    ping = api.http.post(f"/v1/webhooks/{hook['id']}/ping")
    assert (ping.status_code, ping.json()["kind"]) == (202, "ping")
    there = f"/v1/webhooks/{hook['id']}/deliveries/{ping.json()['id']}"
    assert until(lambda: api.http.get(there).json()["status"] == "DELIVERED", "the ping")
    assert list(json.loads(receiver.arrived[0].body)) == ["text"]
    receiver.answer = status(500)
    again = api.http.post(f"/v1/webhooks/{hook['id']}/ping").json()
    there = f"/v1/webhooks/{hook['id']}/deliveries/{again['id']}"
    until(lambda: api.http.get(there).json()["status"] == "FAILED", "the failure")
    assert api.http.get(there).json()["error"] == "the receiver answered 500"
    receiver.answer = status(200)
    assert api.http.post(f"{there}/redeliver").status_code == 202
    until(lambda: api.http.get(there).json()["status"] == "DELIVERED", "the second time")
    assert receiver.ids[-1] == receiver.ids[-2] == again["id"]


def test_a_failed_delivery_is_tried_again_and_a_receiver_that_is_gone_is_not(api: Api, receiver: Receiver) -> None:
    hook = make(api, receiver)
    receiver.answer = status(503)
    run_id = api.client().submit("tiny").id
    api.http.post(f"/v1/runs/{run_id}/pause")
    until(lambda: page(api, hook) and page(api, hook)[-1]["tries"] == 1 and page(api, hook)[-1]["error"], "the first try")
    receiver.answer = status(410)
    due_now(api)
    there = f"/v1/webhooks/{hook['id']}"
    until(lambda: not api.http.get(there).json()["active"], "the end")
    seen = api.http.get(there).json()
    assert seen["off_reason"] == "the receiver answered 410 Gone"
    events = api.http.get(f"/v1/runs/{run_id}/events").json()["items"]
    assert [e["data"]["webhook"] for e in events if e["kind"] == "webhook_off"] == [hook["id"]]
    problem(api.http.post(f"/v1/webhooks/{hook['id']}/ping"), "conflict")
    tried = len(receiver.arrived)
    api.http.post(f"/v1/runs/{run_id}/cancel")
    receiver.answer = status(200)
    on = api.http.patch(f"/v1/webhooks/{hook['id']}", json={"active": True})
    assert (on.json()["active"], on.json()["off_reason"]) == (True, "")
    api.http.post(f"/v1/webhooks/{hook['id']}/ping")
    until(lambda: len(receiver.arrived) > tried, "the ping")


def test_slow_receivers_hold_up_no_one_else(api: Api, receiver: Receiver) -> None:
    release = threading.Event()

    def wait(request: BaseHTTPRequestHandler) -> None:
        release.wait(30)
        status(200)(request)

    def waiting() -> int:
        with api.ledger() as session:
            return session.scalar(select(func.count()).where(WebhookDelivery.status == DeliveryStatus.PENDING)) or 0

    with receiving() as slow:
        slow.answer = wait
        stuck = [make(api, slow, labels=["slow"]) for _ in range(2)]
        quick = make(api, receiver, labels=["slow"])
        for _ in range(deliveries.PER_WEBHOOK + 2):
            run_id = api.client().submit("tiny").id
            api.http.patch(f"/v1/runs/{run_id}", json={"labels": ["slow"]})
            api.http.post(f"/v1/runs/{run_id}/pause")
        until(lambda: len(receiver.arrived) == deliveries.PER_WEBHOOK + 2, "those of the quick one", seconds=10)
        until(lambda: len(slow.arrived) == len(stuck) * deliveries.PER_WEBHOOK, "as many of the slow ones as are sent at once")
        assert waiting() >= len(slow.arrived)
        until(lambda: f"nanochat_webhook_deliveries_waiting {waiting()}.0\n" in api.http.get("/metrics").text, "the gauge")
        release.set()
        for hook in (*stuck, quick):
            until(lambda hook=hook: not page(api, hook, status="PENDING"), "all others")  # type: ignore[misc]
        assert len(slow.arrived) == len(stuck) * (deliveries.PER_WEBHOOK + 2)


SERVE = """
import sys
from controlplane import deliveries
deliveries.CLAIM_S = 1.0  # so that the test is short
from services.api.__main__ import main
sys.exit(main(["serve"]))
"""


def test_an_api_that_is_killed_between_sending_and_recording_loses_nothing(
    database_url: str, redis_url: str, sessions: SessionFactory, home: Path, receiver: Receiver
) -> None:
    """The receiver kills the API as soon as it has the request: nobody has recorded that it arrived."""
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "HOME": str(home), "PORT": "0"}
    env = environment(WEBHOOK_NETWORKS="127.0.0.0/8", **settings)
    new = Secrets(secret_in(home / "keys" / "webhook.key")).new()
    run_id = Ledger(sessions).submit()
    make_hook(
        sessions, url=f"http://127.0.0.1:{receiver.port}/", kinds=["run_status"], nonce=new.nonce, secret_digest=new.digest
    )
    for change in (runs.pause, runs.resume, runs.pause):
        with sessions.begin() as session:
            change(session, run_id)
    processes: list[subprocess.Popen[bytes]] = []

    def kill(request: BaseHTTPRequestHandler) -> None:
        if len(processes) < 2:
            processes[-1].kill()
        else:
            status(204)(request)

    def delivered() -> int:
        done = WebhookDelivery.status == DeliveryStatus.DELIVERED
        with sessions() as session:
            return session.scalar(select(func.count()).where(done)) or 0

    receiver.answer = kill
    try:
        for _ in range(2):
            processes.append(subprocess.Popen([sys.executable, "-c", SERVE], cwd=ROOT, env=env, stderr=subprocess.DEVNULL))
            if len(processes) == 1:
                assert processes[0].wait(60) == -signal.SIGKILL
        until(lambda: delivered() == 3, "the deliveries", seconds=60)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    bodies = {request.headers["webhook-id"]: json.loads(request.body) for request in receiver.arrived}
    assert len(bodies) == 3
    assert len(receiver.ids) == 4
    assert receiver.ids[0] == receiver.ids[1]  # the first one was sent twice, with the same id
    moves = [(body["data"]["details"]["from"], body["data"]["details"]["to"]) for body in bodies.values()]
    assert moves == [("QUEUED", "PAUSED"), ("PAUSED", "QUEUED"), ("QUEUED", "PAUSED")]
    for request in receiver.arrived:
        Verifier(new.secret).verify(request.body, dict(request.headers))


# -- the requests --


def test_a_webhook_of_another_project_is_invisible(api: Api, receiver: Receiver) -> None:
    hook = make(api, receiver)
    delivery = api.http.post(f"/v1/webhooks/{hook['id']}/ping").json()["id"]
    with make_key(api, Role.ADMIN, "other") as stranger:
        for name in ROUTES:
            method, path = name.split()
            if "{webhook_id}" in path:
                body = {} if method in ("PATCH", "POST") else None
                there = address(path, webhook_id=hook["id"], delivery_id=delivery)
                problem(stranger.request(method, there, json=body), "webhook-not-found")
        assert stranger.get("/v1/webhooks").json()["items"] == []
        mine = stranger.post("/v1/webhooks", json={"name": "x", "url": f"http://127.0.0.1:{receiver.port}/"}).json()
        there = f"/v1/webhooks/{mine['id']}/deliveries/{delivery}"
        problem(stranger.get(there), "webhook-not-found")
        foreign = {"name": "x", "url": f"http://127.0.0.1:{receiver.port}/", "run": api.client().submit("tiny").id}
        assert stranger.post("/v1/webhooks", json=foreign).status_code == 404
    assert api.http.get(f"/v1/webhooks/{hook['id']}").json()["name"] == "a hook"


def test_no_secret_is_shown_twice_or_stored_or_logged(api: Api, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name in WARNINGS_ONLY:  # as `logs.configure` does in the process
        caplog.set_level(logging.WARNING, logger=name)
    receiver.answer = status(500)
    hook = make(api, receiver)
    secret = hook.pop("secret")
    assert secret.startswith("whsec_")
    there = f"/v1/webhooks/{hook['id']}"
    api.http.post(f"{there}/ping")
    until(lambda: page(api, hook)[0]["status"] == "FAILED", "the failure")
    new = api.http.post(f"{there}/rotate", json={"overlap_hours": 1}).json()
    assert new["secret"] not in ("", secret)
    assert new["old_secret_until"] is not None
    seen = [api.http.get(path).text for path in (there, "/v1/webhooks", f"{there}/deliveries", "/v1/audit")]
    with api.ledger() as session:
        row = session.get_one(Webhook, hook["id"])
        seen.append(str({k: v for k, v in vars(row).items() if k != "url"}))
        assert row.owner == api.http.get("/v1/keys").json()["items"][-1]["id"]
    for text in (*seen, caplog.text):
        for word in (secret, secret.removeprefix("whsec_"), new["secret"], "t0ken"):
            assert word not in text
    assert oct((api.home / "keys" / "webhook.key").stat().st_mode)[-3:] == "600"


def test_after_a_rotation_both_secrets_verify_and_without_overlap_only_the_new_one(api: Api, receiver: Receiver) -> None:
    hook = make(api, receiver)
    secrets = [hook["secret"]]
    for hours, good in ((24, 2), (0, 1)):
        secrets.append(api.http.post(f"/v1/webhooks/{hook['id']}/rotate", json={"overlap_hours": hours}).json()["secret"])
        api.http.post(f"/v1/webhooks/{hook['id']}/ping")
        request = until(lambda: receiver.arrived and receiver.arrived.pop(), "the ping")
        until(lambda: not page(api, hook, status="PENDING"), "the outcome")
        verified = []
        for secret in secrets:
            with suppress(WebhookVerificationError):
                Verifier(secret).verify(request.body, dict(request.headers))
                verified.append(secret)
        assert verified == secrets[-good:]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": " "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "\u202egnp.exe"}, "name"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": "https://nobody.invalid/"}, "url"),
        ({"url": "https://u:p@example.com/"}, "url"),
        ({"url": "https://example.com:25/"}, "url"),
        ({"url": "https://exa\u0000mple.com/"}, "url"),
        ({"kinds": []}, "kinds"),
        ({"kinds": ["metric"]}, "kinds.0"),
        ({"labels": ["a b"]}, "labels.0"),
        ({"labels": ["a"] * 21}, "labels"),
        ({"format": "xml"}, "format"),
        ({"run": "a\0"}, "run"),
        ({"secret": "whsec_mine"}, "secret"),
    ],
)
def test_a_bad_webhook_is_refused_by_field(api: Api, body: Any, field: str) -> None:
    whole = {} if body == {} else {"name": "a", "url": "https://127.0.0.1/", **body}
    found = problem(api.http.post("/v1/webhooks", json=whole), "invalid-request")
    assert field in [e["field"] for e in found["errors"]]


def test_a_project_has_a_bounded_number_of_webhooks_in_pages(
    api: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"name": "one of many", "url": f"http://127.0.0.1:{receiver.port}/"}
    with make_key(api, Role.OPERATOR, "crowded") as client, ThreadPoolExecutor(4) as pool:
        monkeypatch.setattr(webhooks, "MOST", 5)
        codes = list(pool.map(lambda _: client.post("/v1/webhooks", json=body).status_code, range(8)))
        assert sorted(codes) == [201] * 5 + [409] * 3
        first = client.get("/v1/webhooks", params={"limit": 3}).json()
        second = client.get("/v1/webhooks", params={"limit": 3, "cursor": first["next_cursor"]}).json()
        assert len({hook["id"] for hook in first["items"] + second["items"]}) == 5
        assert second["next_cursor"] is None
        problem(client.get("/v1/webhooks", params={"cursor": first["next_cursor"][:-4] + "AAAA"}), "bad-cursor")
        gone = first["items"][0]
        assert client.delete(f"/v1/webhooks/{gone['id']}").json()["id"] == gone["id"]
        problem(client.delete(f"/v1/webhooks/{gone['id']}"), "webhook-not-found")
        assert client.post("/v1/webhooks", json=body).status_code == 201


def test_changes_hold_from_then_on(api: Api, receiver: Receiver) -> None:
    hook = make(api, receiver, kinds=["run_forked"])
    there = f"/v1/webhooks/{hook['id']}"
    with receiving() as other:
        change = {
            "url": f"http://127.0.0.1:{other.port}/new",
            "kinds": ["run_status"],
            "labels": ["x"],
            "name": "b",
            "format": "slack",
        }
        seen = api.http.patch(there, json=change).json()
        assert (seen["origin"], seen["kinds"], seen["labels"], seen["name"]) == (change["url"][:-4], ["run_status"], ["x"], "b")
        problem(api.http.patch(there, json={"url": "https://10.0.0.1/"}), "invalid-request")
        problem(api.http.patch(there, json={"active": "no"}), "invalid-request")
        run_id = api.client().submit("tiny").id
        api.http.patch(f"/v1/runs/{run_id}", json={"labels": ["x"]})
        api.http.patch(there, json={"active": False})
        api.http.post(f"/v1/runs/{run_id}/pause")
        api.http.patch(there, json={"active": True})
        api.http.post(f"/v1/runs/{run_id}/cancel")
        until(lambda: other.arrived, "the event")
        assert [json.loads(r.body)["text"] for r in other.arrived] == [f"*tiny* (`{run_id}`) is CANCELLED"]
    assert receiver.arrived == []
    items = page(api, hook, limit=1)
    assert [d["kind"] for d in items] == ["run_status"]
    problem(api.http.get(f"{there}/deliveries", params={"cursor": "nonsense"}), "bad-cursor")
    problem(api.http.get(f"{there}/deliveries/msg_00000000000000ff"), "webhook-not-found")
