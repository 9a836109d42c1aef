"""Bad input is refused before any work, as a problem detail that names the field and what to do. Nothing is written."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select

from controlplane.models import IdempotencyKey, Run, Stage
from services.api.problems import KINDS, URN
from tests.api.server import Api

PROBLEM_JSON = "application/problem+json"


def problem(response: Any, kind: str) -> dict[str, Any]:
    """Check that the response is a problem detail (RFC 9457) of this kind, and return its body."""
    assert response.headers["content-type"] == PROBLEM_JSON, response.text
    body: dict[str, Any] = response.json()
    assert body["type"] == URN + kind, body
    assert body["title"] == KINDS[kind].title
    assert body["status"] == response.status_code == KINDS[kind].status
    assert body["detail"]
    return body


def rows(api: Api) -> list[int | None]:
    with api.ledger() as session:
        return [session.scalar(select(func.count()).select_from(table)) for table in (Run, Stage, IdempotencyKey)]


def folder(path: Path, *files: tuple[str, dict[str, list[str]]]) -> str:
    path.mkdir()
    for name, columns in files:
        pq.write_table(pa.table(columns), path / name)
    return str(path)


TINY: dict[str, Any] = {"recipe": "tiny"}
# body of POST /v1/runs, kind of problem, wrong field, words that the message must contain
BODIES: dict[str, tuple[Any, str, str, tuple[str, ...]]] = {
    "unknown recipe": ({"recipe": "huge"}, "invalid-recipe", "recipe", ("huge", "tiny", "speedrun")),
    "a path as the recipe": ({"recipe": "../../etc/passwd.toml"}, "invalid-request", "recipe", ("tiny",)),
    "no recipe": ({}, "invalid-request", "recipe", ("required",)),
    "recipe of another type": ({"recipe": 7}, "invalid-request", "recipe", ("name", "table")),
    "unknown field of the request": (TINY | {"recipee": 1}, "invalid-request", "recipee", ("unknown", "spelling")),
    "unknown field of the recipe": (
        {"recipe": {"base": {"num_iteration": 5}}},
        "invalid-recipe",
        "base.num_iteration",
        ("unknown", "spelling"),
    ),
    "unknown override": (TINY | {"overrides": {"bass.depth": 2}}, "invalid-recipe", "bass", ("unknown", "spelling")),
    "wrong type": (
        TINY | {"overrides": {"base.num_iterations": "many"}},
        "invalid-recipe",
        "base.num_iterations",
        ("integer",),
    ),
    "out of range": (TINY | {"overrides": {"model.depth": 0}}, "invalid-recipe", "model.depth", ("greater than 0",)),
    "indivisible batch": (
        TINY | {"overrides": {"base.total_batch_size": 8000}},
        "invalid-recipe",
        "base.total_batch_size",
        ("base.total_batch_size 8000", "256", "7936", "8192"),
    ),
    "overrides that are not an object": (TINY | {"overrides": [1]}, "invalid-request", "overrides", ("dictionary",)),
    "override below a value": (
        TINY | {"overrides": {"data.tok_chars.x": 1}},
        "invalid-recipe",
        "data.tok_chars.x",
        ("tok_chars", "table"),
    ),
    "name of another type": (TINY | {"name": 5}, "invalid-request", "name", ("string",)),
    "empty name": (TINY | {"name": " "}, "invalid-request", "name", ("at least 1",)),
    "a name without a visible character": (TINY | {"name": "\u200b"}, "invalid-request", "name", ("U+200B", "remove it")),
    "a name of two lines": (TINY | {"name": "a\nb"}, "invalid-request", "name", ("U+000A", "remove it")),
    "text that cannot be stored": (TINY | {"name": "a\0b"}, "invalid-request", "name", ("U+0000",)),
    "a path that is too long": (
        TINY | {"overrides": {"data.source": {"kind": "folder", "path": "/" + "x" * 5000}}},
        "invalid-recipe",
        "data.source.path",
        ("4096",),
    ),
    "a number too large": (
        TINY | {"overrides": {"base.num_iterations": 10**400}},
        "invalid-recipe",
        "base.num_iterations",
        ("less than or equal to",),
    ),
    "missing data folder": (
        TINY | {"overrides": {"data.source": {"kind": "folder", "path": "/no/such/folder"}}},
        "invalid-recipe",
        "data.source",
        ("/no/such/folder",),
    ),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_bad_submission_names_the_field_and_writes_nothing(api: Api, case: str) -> None:
    body, kind, field, words = BODIES[case]
    before = rows(api)
    for path in ("/v1/runs", "/v1/runs/plan"):
        if path.endswith("plan") and "name" in body:
            continue  # a plan has no name
        found = problem(api.http.post(path, json=body, headers={"Idempotency-Key": case}), kind)
        errors = [e for e in found["errors"] if e["field"].startswith(field)]
        assert errors, found
        for word in words:
            assert word in errors[0]["message"], found
    assert rows(api) == before


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], ("parquet",)),
        ([("shard_0.parquet", {"body": ["a"]}), ("shard_1.parquet", {"body": ["a"]})], ("text", "shard_")),
    ],
    ids=["no shards", "no column text"],
)
def test_a_data_folder_that_cannot_be_trained_on_is_refused(
    api: Api, tmp_path: Path, files: list[tuple[str, dict[str, list[str]]]], words: tuple[str, ...]
) -> None:
    path = folder(tmp_path / "shards", *files)
    before = rows(api)
    body = TINY | {"overrides": {"data.source": {"kind": "folder", "path": path}}}
    found = problem(api.http.post("/v1/runs", json=body), "invalid-recipe")
    assert found["errors"][0]["field"].startswith("data.source")
    for word in (path, *words):
        assert word in found["detail"]
    assert rows(api) == before


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"null"])
def test_a_body_that_is_not_a_json_object_is_refused(api: Api, content: bytes) -> None:
    response = api.http.post("/v1/runs", content=content, headers={"Content-Type": "application/json"})
    found = problem(response, "invalid-request")
    assert found["errors"]


@pytest.mark.parametrize("given", [{}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "text/plain"}])
@pytest.mark.parametrize("path", ["/v1/runs", "/v1/runs/plan", "/v1/keys", "/v1/sweeps"])
def test_a_body_that_does_not_say_it_is_json_is_told_which_header_to_send(api: Api, path: str, given: dict[str, str]) -> None:
    response = api.http.post(path, content=b'{"recipe": "tiny"}', headers=given)
    assert "Content-Type: application/json" in problem(response, "invalid-request")["detail"]


def test_a_body_that_is_not_utf_8_is_refused(api: Api) -> None:
    response = api.http.post("/v1/runs", content=b"\xff", headers={"Content-Type": "application/json"})
    problem(response, "malformed-body")


def test_nan_is_refused(api: Api) -> None:
    body = '{"recipe": "tiny", "overrides": {"base.target_flops": NaN}}'
    response = api.http.post("/v1/runs", content=body, headers={"Content-Type": "application/json"})
    assert "NaN" in problem(response, "invalid-request")["detail"]


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    response = api.http.post("/v1/runs", json={"recipe": {"description": "x" * (2 << 20)}})
    assert "1048576" in problem(response, "body-too-large")["detail"]
    pieces = (b" " * 65_536 for _ in range(20))  # chunked, so the length is not declared
    response = api.http.post("/v1/runs", content=pieces, headers={"Content-Type": "application/json"})
    problem(response, "body-too-large")


@pytest.mark.parametrize("header", ["", "Basic YTpi", "Bearer", "Bearer nc_wrong", "nc_wrong"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/runs"), ("POST", "/v1/runs"), ("GET", "/v1/models")])
def test_requests_without_a_valid_key_are_refused(api: Api, method: str, path: str, header: str) -> None:
    before = rows(api)
    response = api.http.request(method, path, headers={"Authorization": header}, json=TINY if method == "POST" else None)
    found = problem(response, "unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert "Authorization" in found["detail"] or "NANOCHAT_API_KEY" in found["detail"]
    assert rows(api) == before


UNKNOWN = "r_00000000000000ff"


@pytest.fixture(scope="module")
def known(api: Api) -> str:
    return api.client().submit("tiny").id


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", f"/v1/runs/{UNKNOWN}", "run-not-found"),
        *(("POST", f"/v1/runs/{UNKNOWN}/{action}", "run-not-found") for action in ("pause", "resume", "cancel", "retry")),
        ("GET", f"/v1/runs/{UNKNOWN}/metrics", "run-not-found"),
        ("GET", f"/v1/runs/{UNKNOWN}/hardware", "run-not-found"),
        ("GET", f"/v1/runs/{UNKNOWN}/events", "run-not-found"),
        ("GET", f"/v1/runs/{UNKNOWN}/logs", "run-not-found"),
        ("GET", f"/v1/runs/{UNKNOWN}/checkpoints", "run-not-found"),
        ("GET", f"/v1/runs/{UNKNOWN}/report", "run-not-found"),
        ("POST", "/v1/checkpoints/c_00000000000000ff/promote", "checkpoint-not-found"),
        ("DELETE", "/v1/keys/k_00000000000000ff", "key-not-found"),
        ("GET", "/v1/recipes/huge", "recipe-not-found"),
        ("GET", "/v1/nothing", "not-found"),
        ("DELETE", "/v1/runs", "method-not-allowed"),
        ("GET", "/v1/runs/x", "run-not-found"),
        ("GET", "/v1/runs/%00", "invalid-request"),
        ("GET", "/v1/runs?limit=0", "invalid-request"),
        ("GET", "/v1/runs?limit=x", "invalid-request"),
        ("GET", "/v1/runs?status=DONE", "invalid-request"),
        ("GET", "/v1/runs?cursor=x", "bad-cursor"),
        ("GET", "/v1/runs?sort=size", "invalid-request"),
        ("GET", "/v1/runs?search=%00", "invalid-request"),
        ("GET", "/v1/runs?created_after=2026-01-01T00:00:00", "invalid-request"),
        ("GET", "/v1/runs/known/events?after=-1", "invalid-request"),
        ("GET", "/v1/runs/known/events?after=9223372036854775808", "invalid-request"),
        ("GET", "/v1/runs/known/metrics?max_points=1", "invalid-request"),
        ("GET", "/v1/runs/known/metrics?from_step=-1", "invalid-request"),
        ("GET", "/v1/runs/known/metrics?from_step=2&to_step=1", "invalid-request"),
        ("GET", "/v1/runs/known/metrics?to_step=9223372036854775808", "invalid-request"),
        ("GET", "/v1/runs/known/hardware?max_points=2001", "invalid-request"),
        ("GET", "/v1/runs/known/logs?stage=%00", "invalid-request"),
    ],
)
def test_unknown_addresses_and_wrong_parameters_are_refused(api: Api, known: str, method: str, path: str, kind: str) -> None:
    path = path.replace("known", known)
    found = problem(api.http.request(method, path), kind)
    if kind == "invalid-request":
        assert found["errors"][0]["field"].startswith(("path ", "query ")), found


@pytest.mark.parametrize(
    "position",
    [b'["2026-01-01T00:00:00+00:00", "\\u0000"]', b'["2026-01-01T00:00:00+00:00", "\\ud800"]', b"\xed\xa0\x80", b"7"],
)
def test_a_forged_cursor_is_refused(api: Api, position: bytes) -> None:
    cursor = base64.urlsafe_b64encode(position).decode()
    found = problem(api.http.get("/v1/runs", params={"cursor": cursor}), "bad-cursor")
    assert found["status"] == 400


def test_a_cursor_of_another_query_is_refused(api: Api) -> None:
    for _ in range(2):
        api.client().submit("tiny")
    cursor = api.http.get("/v1/runs", params={"limit": 1}).json()["next_cursor"]
    assert api.http.get("/v1/runs", params={"limit": 1, "cursor": cursor}).status_code == 200
    problem(api.http.get("/v1/runs", params={"limit": 1, "cursor": cursor, "sort": "name"}), "bad-cursor")


def test_a_wrong_method_is_answered_with_the_allowed_ones(api: Api) -> None:
    assert api.http.put("/v1/runs").headers["allow"] == "GET, POST"


def test_a_stream_of_an_unknown_run_is_answered_with_a_problem(api: Api) -> None:
    response = api.http.get(f"/v1/runs/{UNKNOWN}/events", headers={"Accept": "text/event-stream"})
    problem(response, "run-not-found")
    response = api.http.get(f"/v1/runs/{UNKNOWN}/logs", headers={"Accept": "text/event-stream", "Last-Event-ID": "x"})
    problem(response, "run-not-found")


@pytest.mark.parametrize("forged", ["x", "-1", "1.0", "", "9" * 18, str(2**64), "1" * 5000])
@pytest.mark.parametrize("feed", ["events", "logs"])
def test_a_forged_last_event_id_is_refused(api: Api, feed: str, forged: str) -> None:
    run = api.client().submit("tiny")
    headers = {"Accept": "text/event-stream", "Last-Event-ID": forged}
    found = problem(api.http.get(f"/v1/runs/{run.id}/{feed}", headers=headers), "bad-event-id")
    assert found["errors"][0]["field"] == "header Last-Event-ID"
    assert found["status"] == 400


def test_cancelling_a_finished_run_conflicts(api: Api) -> None:
    run = api.client().submit("tiny")
    api.client().cancel(run.id)
    found = problem(api.http.post(f"/v1/runs/{run.id}/cancel"), "run-finished")
    assert run.id in found["detail"]
    assert "CANCELLED" in found["detail"]


def test_an_idempotency_key_used_for_another_request_is_refused(api: Api) -> None:
    key = {"Idempotency-Key": "one-key"}
    assert api.http.post("/v1/runs", json=TINY, headers=key).status_code == 201
    before = rows(api)
    found = problem(api.http.post("/v1/runs", json=TINY | {"name": "other"}, headers=key), "idempotency-key-reused")
    assert found["errors"][0]["field"] == "header Idempotency-Key"
    assert rows(api) == before
    for bad in ("", "x" * 256):
        problem(api.http.post("/v1/runs", json=TINY, headers={"Idempotency-Key": bad}), "invalid-request")


@pytest.mark.parametrize("moment", ["0.5", "0", " 1_000 ", "0001-01-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00"])
@pytest.mark.parametrize("name", ["created_before", "created_after"])
def test_a_moment_is_a_date_and_time_with_a_time_zone(api: Api, name: str, moment: str) -> None:
    assert name in problem(api.http.get("/v1/runs", params={name: moment}), "invalid-request")["detail"]


@pytest.mark.parametrize("wish", [0, 1, "true", None])
def test_a_dry_run_is_asked_for_by_true_or_false(api: Api, wish: Any) -> None:
    problem(api.http.post("/v1/gc", json={"dry_run": wish}), "invalid-request")


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/runs", "status"),
        ("/v1/workers", "none"),
        ("/v1/runs/{run}", "none"),
        ("/v1/runs/{run}/events", "limit"),
        ("/v1/keys", "none"),
    ],
)
def test_an_unknown_query_parameter_is_refused_instead_of_ignored(api: Api, path: str, known: str) -> None:
    run = api.http.post("/v1/runs", json=TINY).json()["id"]
    found = problem(api.http.get(path.format(run=run), params={"statsu": "FAILED"}), "invalid-request")
    assert "statsu" in found["detail"]
    assert known in found["detail"]
    assert (
        api.http.get(path.format(run=run), params={"statsu": "FAILED"}, headers={"Authorization": "Bearer wrong"}).status_code
        == 401
    )


@pytest.mark.parametrize("name", ["two\nlines", "right to left \u202e", "\u200b"])
def test_a_key_has_a_name_that_people_can_read(api: Api, name: str) -> None:
    problem(api.http.post("/v1/keys", json={"name": name, "role": "viewer"}), "invalid-request")
