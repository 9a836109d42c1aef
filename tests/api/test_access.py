"""Keys, roles, projects, the audit trail and the rate limit, over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from controlplane.roles import Role
from services.api.__main__ import document
from services.standalone.valkey import Valkey
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api, serving
from tests.api.test_bad_input import problem
from tests.waiting import until

IDS = {
    "run_id": "r_00000000000000ff",
    "checkpoint_id": "c_00000000000000ff",
    "sweep_id": "s_00000000000000ff",
    "key_id": "k_00000000000000ff",
    "webhook_id": "h_00000000000000ff",
    "delivery_id": "msg_00000000000000ff",
}
OPEN = {"/health", "/ready", "/metrics"}
# Operations that need another role than their method says: GET is for viewers, everything else for operators.
ROLES = {
    "plan_run": Role.VIEWER,
    "plan_sweep": Role.VIEWER,
    **dict.fromkeys(("make_key", "list_keys", "expire_key", "revoke_key", "get_audit", "collect_garbage"), Role.ADMIN),
    **dict.fromkeys(("drain_worker", "undrain_worker"), Role.ADMIN),
    **dict.fromkeys(("list_webhooks", "get_webhook", "list_deliveries", "get_delivery"), Role.OPERATOR),
}
# "GET /v1/runs" -> the operation's id, which is the name of its function
ROUTES: dict[str, str] = {
    f"{method.upper()} {path}": operation["operationId"]
    for path, methods in json.loads(document())["paths"].items()
    if path not in OPEN
    for method, operation in methods.items()
}


def address(path: str, **known: str) -> str:
    """The path with values for its parameters."""
    return re.sub(r"\{(\w+)\}", lambda part: quote((IDS | known).get(part[1], "nothing"), safe=""), path)


def make(api: Api, role: Role, project: str = "default", **more: Any) -> httpx.Client:
    """A client with a new key."""
    body = {"name": f"a {role}", "role": role, "project": project, **more}
    answer = api.http.post("/v1/keys", json=body)
    assert answer.status_code == 201, answer.text
    return httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {answer.json()['secret']}"}, timeout=20)


@pytest.fixture(scope="module")
def holders(api: Api) -> Iterator[dict[Role, httpx.Client]]:
    made = {role: make(api, role) for role in Role}
    yield made
    for client in made.values():
        client.close()


@pytest.mark.parametrize("name", ROUTES)
def test_every_route_refuses_requests_without_a_key_and_keys_of_a_lesser_role(
    api: Api, holders: dict[Role, httpx.Client], name: str
) -> None:
    method, path = name.split()
    needed = ROLES.get(ROUTES[name], Role.VIEWER if method == "GET" else Role.OPERATOR)
    problem(httpx.request(method, api.url + address(path)), "unauthorized")
    for role, client in holders.items():
        answer = client.request(method, address(path))
        if role.includes(needed):
            assert answer.status_code not in (401, 403, 500), answer.text
        else:
            assert needed in problem(answer, "forbidden")["detail"]


def test_a_run_of_another_project_is_invisible(api: Api, holders: dict[Role, httpx.Client]) -> None:
    worker = ManualWorker(api.ledger)
    run = holders[Role.OPERATOR].post("/v1/runs", json={"recipe": "tiny", "name": "mine"}).json()
    for stage in ("data", "tok_train", "tok_eval", "base_train"):
        worker.complete(run["id"], stage)
    checkpoint = holders[Role.VIEWER].get(f"/v1/runs/{run['id']}/checkpoints").json()["items"][0]["id"]
    assert holders[Role.OPERATOR].post(f"/v1/checkpoints/{checkpoint}/promote").status_code == 200
    with make(api, Role.ADMIN, "other") as stranger:
        for name in ROUTES:
            method, path = name.split()
            if "{run_id}" in path or "{checkpoint_id}" in path:
                for ref in (run["id"], "mine"):
                    there = address(path, run_id=ref, checkpoint_id=checkpoint)
                    assert stranger.request(method, there).status_code == 404, name
        assert stranger.get("/v1/runs").json()["items"] == []
        assert stranger.get("/v1/models").json()["items"] == []
    assert [m["id"] for m in holders[Role.VIEWER].get("/v1/models").json()["items"]] == [checkpoint]
    assert holders[Role.VIEWER].get("/v1/runs/mine").json()["status"] == "RUNNING"


def test_a_name_stands_for_a_run_only_if_it_is_unique(api: Api) -> None:
    first = api.client().submit("tiny", name="twins? 50 % #1")
    assert api.client().run("twins? 50 % #1").id == first.id
    second = api.client().submit("tiny", name="twins")
    assert api.http.post("/v1/runs/twins/pause").json()["id"] == second.id
    third = api.client().submit("tiny", name="twins")
    found = problem(api.http.get("/v1/runs/twins"), "run-not-found")
    assert second.id in found["detail"]
    assert third.id in found["detail"]
    impostor = api.client().submit("tiny", name=second.id)
    assert api.http.get(f"/v1/runs/{second.id}").json()["id"] == second.id != impostor.id


@pytest.mark.parametrize("role", Role)
def test_a_key_can_ask_what_it_is(api: Api, role: Role) -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    with make(api, role, "own", expires_at=end.isoformat()) as holder:
        answer = holder.get("/v1/key").json()
        assert datetime.fromisoformat(answer.pop("expires_at")) == end
        assert re.fullmatch(r"k_[0-9a-f]{16}", answer.pop("id"))
        assert answer == {"name": f"a {role}", "role": role, "project": "own"}  # no secret, and nothing of other keys
    with api.client() as client:
        assert (client.own_key().role, client.own_key().project, client.own_key().expires_at) == ("admin", "default", None)


def test_keys_expire_and_are_revoked(api: Api) -> None:
    client = make(api, Role.VIEWER, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    key = api.http.get("/v1/keys").json()["items"][0]
    assert (key["role"], key["revoked_at"], "secret" in key) == ("viewer", None, False)
    assert client.get("/v1/runs").status_code == 200
    api.http.patch(f"/v1/keys/{key['id']}", json={"expires_at": datetime.now(UTC).isoformat()})
    assert "expired" in problem(client.get("/v1/runs"), "unauthorized")["detail"]
    api.http.patch(f"/v1/keys/{key['id']}", json={"expires_at": None})
    assert client.get("/v1/runs").status_code == 200
    revoked = api.http.delete(f"/v1/keys/{key['id']}").json()
    assert revoked["revoked_at"] is not None
    assert api.http.delete(f"/v1/keys/{key['id']}").json() == revoked
    problem(client.get("/v1/runs"), "unauthorized")
    client.close()


def test_the_last_admin_s_key_cannot_be_taken_away(api: Api) -> None:
    admins = [k for k in api.http.get("/v1/keys").json()["items"] if k["role"] == "admin"]
    first = admins.pop()  # the oldest is the key of these requests
    for key in admins:
        assert api.http.delete(f"/v1/keys/{key['id']}").status_code == 200
    found = problem(api.http.delete(f"/v1/keys/{first['id']}"), "conflict")
    assert "another admin key" in found["detail"]
    soon = {"expires_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
    problem(api.http.patch(f"/v1/keys/{first['id']}", json=soon), "conflict")
    assert api.http.get("/v1/keys").status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": " "}, "name"),
        ({"name": "a\0"}, "name"),
        ({"name": "a", "role": "root"}, "role"),
        ({"name": "a", "project": "Not This"}, "project"),
        ({"name": "a", "expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"name": "a", "expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at"),
        ({"name": "a", "expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
        ({"name": "a", "secret": "nc_mine"}, "secret"),
    ],
)
def test_a_bad_key_is_refused_by_field(api: Api, body: Any, field: str) -> None:
    found = problem(api.http.post("/v1/keys", json=body), "invalid-request")
    assert [e["field"] for e in found["errors"]] == [field]


def test_the_audit_trail_says_who_asked_for_what_and_how_it_ended(api: Api) -> None:
    with make(api, Role.OPERATOR) as client:
        run_id = client.post("/v1/runs", json={"recipe": "tiny"}).json()["id"]
        client.post(f"/v1/runs/{run_id}/cancel")
        client.post(f"/v1/runs/{run_id}/retry")
        client.post("/v1/runs", json={"recipe": "huge"})
        client.get("/v1/runs")

    def entries() -> list[tuple[str, str | None, dict[str, str], str | None]]:
        items = api.http.get("/v1/audit", params={"limit": 5}).json()["items"]
        assert all(item["project"] == "default" for item in items)
        return [(i["action"], i["outcome"], i["target"], i["made"]) for i in items][:4]

    until(lambda: all(outcome for _, outcome, _, _ in entries()), "the outcomes")
    assert entries() == [
        ("submit_run", "invalid-recipe", {}, None),
        ("retry_run", "conflict", {"run_id": run_id}, None),
        ("cancel_run", "done", {"run_id": run_id}, None),
        ("submit_run", "done", {}, run_id),
    ]
    page = api.http.get("/v1/audit", params={"limit": 2}).json()
    older = api.http.get("/v1/audit", params={"limit": 2, "before": page["next_before"]}).json()
    assert [i["id"] for i in page["items"]] > [i["id"] for i in older["items"]]


def test_a_key_that_sends_too_much_waits_and_another_does_not(
    module_database_url: str, valkey: Valkey, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOCHAT_RATE_LIMIT_PER_S", "0.5")
    monkeypatch.setenv("NANOCHAT_RATE_LIMIT_BURST", "3")
    with serving(module_database_url, valkey.url, api.home) as slow, make(slow, Role.VIEWER) as client:
        answers = [client.get("/v1/runs") for _ in range(4)]
        assert [a.status_code for a in answers] == [200, 200, 200, 429]
        problem(answers[-1], "too-many-requests")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 2
        assert slow.http.get("/v1/runs").status_code == 200
        wrong = [httpx.get(f"{slow.url}/v1/runs", headers={"Authorization": "Bearer nc_x"}) for _ in range(4)]
        assert [a.status_code for a in wrong] == [401, 401, 401, 429]
