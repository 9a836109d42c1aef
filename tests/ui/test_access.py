"""Who may see and do what: hosts, origins, sign-in, and what a page gives away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from services.ui.access.sessions import Sessions, secret_of
from services.ui.app import create_app
from services.ui.pages import inside
from services.ui.platform import Platforms
from tests.ui.conftest import Site

HTML = {"Accept": "text/html"}


@pytest.fixture
def http(site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=30) as client:
        yield client


@contextmanager
def signed_in(site: Site, key: str | None = None) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=30) as client:
        assert client.post("/signin", json={"key": key or site.api.key}).status_code == 204
        yield client


def test_without_a_sign_in_there_is_only_the_way_to_it(site: Site, http: httpx.Client) -> None:
    page = http.get("/runs/r_1?tab=log", headers=HTML)
    assert (page.status_code, page.headers["location"]) == (303, "/signin?next=%2Fruns%2Fr_1%3Ftab%3Dlog")
    before = len(list(site.api.client().runs()))
    assert http.post("/api/v1/runs", json={"recipe": "tiny"}).status_code == 401
    for path in ("/api/v1/runs", "/inference/v1/models", "/chat", "/chat/gradio_api/info", "/report/r_1", "/api/v1/../v1/runs"):
        assert http.get(path).status_code == 401, path
    assert len(list(site.api.client().runs())) == before
    for path in ("/health", "/ready", "/metrics", "/signin"):
        assert http.get(path).status_code == 200, path


def test_the_key_gives_a_cookie_that_no_script_and_no_other_site_can_use(site: Site) -> None:
    answer = httpx.post(f"{site.url}/signin", json={"key": site.api.key})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert site.api.key not in answer.headers["set-cookie"]
    with signed_in(site) as client:
        page = client.get("/", headers=HTML)
        assert page.status_code == 200
        assert site.api.key not in page.text
        assert 'data-role="admin"' in page.text
        assert client.get("/signin?next=/runs/r_1", headers=HTML).headers["location"] == "/runs/r_1"
        client.post("/signout")
        assert client.get("/api/v1/runs").status_code == 401


@pytest.mark.parametrize("key", ["nc_wrong", "x" * 200])
def test_a_key_that_is_not_known(http: httpx.Client, key: str) -> None:
    answer = http.post("/signin", json={"key": key})
    assert answer.status_code == 403
    assert "unknown, expired or revoked" in answer.json()["detail"]
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "body", ["", "{}", '{"key": ""}', '{"key": "é"}', '{"key": 5}', '{"key": "a", "next": "b"}', "[" * 5000]
)
def test_a_sign_in_that_is_none(http: httpx.Client, body: str) -> None:
    assert http.post("/signin", content=body, headers={"Content-Type": "application/json"}).status_code in (400, 422)


def test_a_revoked_key_is_signed_out_at_its_next_request(site: Site) -> None:
    made = site.api.http.post("/v1/keys", json={"name": "visitor", "role": "viewer"}).json()
    with signed_in(site, made["secret"]) as client:
        assert client.get("/api/v1/runs").status_code == 200
        assert client.post("/api/v1/runs", json={"recipe": "tiny"}).status_code == 403  # a viewer looks
        site.api.http.delete(f"/v1/keys/{made['id']}")
        assert client.get("/api/v1/runs").status_code == 401
        assert not client.cookies  # so that the next page is the sign-in


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_every_key_of_the_project_may_talk_to_its_models(site: Site, role: str) -> None:
    made = site.api.http.post("/v1/keys", json={"name": "talks", "role": role}).json()
    with signed_in(site, made["secret"]) as client:
        assert client.get("/inference/v1/models").status_code == 200
        assert client.get("/api/v1/runs").status_code == 200


def test_a_key_of_another_project_is_kept_from_the_models_and_stays_signed_in(site: Site) -> None:
    made = site.api.http.post("/v1/keys", json={"name": "elsewhere", "role": "operator", "project": "elsewhere"}).json()
    with signed_in(site, made["secret"]) as client:
        refused = client.get("/inference/v1/models")
        assert refused.status_code == 403
        assert "another project" in refused.json()["detail"]
        assert client.get("/api/v1/runs").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", ""])
def test_names_that_are_not_ours_are_refused(site: Site, host: str) -> None:
    with signed_in(site) as client:
        assert client.get("/", headers={**HTML, "Host": host}).status_code in (400, 421)
        assert client.get("/health", headers={"Host": host}).status_code in (
            200,
            400,
        )  # a monitor knows the service by its own name


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}],
)
def test_requests_of_other_sites_change_nothing(site: Site, headers: dict[str, str]) -> None:
    with signed_in(site) as client:
        before = len(list(site.api.client().runs()))
        assert client.post("/api/v1/runs", json={"recipe": "tiny"}, headers=headers).status_code == 403
        assert client.post("/signout", headers=headers).status_code == 403
        assert len(list(site.api.client().runs())) == before


def test_a_cookie_of_somebody_else_or_of_another_secret_is_none(site: Site, tmp_path: Path) -> None:
    with signed_in(site) as client:
        name, value = next(iter(client.cookies.items()))
        client.cookies.set(name, value[:-4] + "AAAA", domain="127.0.0.1")
    for forged in (value[:-4] + "AAAA", "", "x", json.dumps({"secret": site.api.key})):
        assert httpx.get(f"{site.url}/api/v1/runs", headers={"Cookie": f"{name}={forged}"}).status_code in (400, 401)


def test_a_restart_signs_nobody_out(site: Site, tmp_path: Path) -> None:
    def start() -> TestClient:
        app = create_app(Platforms(site.api.url, site.inference.url), Sessions(secret_of(tmp_path)), ["testserver"])
        return TestClient(app, base_url="http://testserver")

    with start() as first:
        assert first.post("/signin", json={"key": site.api.key}).status_code == 204
        cookies = dict(first.cookies)
    assert (tmp_path / "keys/session.key").stat().st_mode & 0o777 == 0o600
    with start() as second:
        second.cookies.update(cookies)
        assert second.get("/api/v1/runs").status_code == 200


@pytest.mark.parametrize(
    "address",
    [None, "", "//evil.example", "https://evil.example/", "/\\evil.example", "evil", "javascript:alert(1)", "/%0a//evil"],
)
def test_sign_in_leads_nowhere_else(address: str | None) -> None:
    assert inside(address) in ("/", "/%0a//evil")


def test_every_answer_forbids_what_is_from_elsewhere(site: Site) -> None:
    with signed_in(site) as client:
        for path in ("/", "/chat", "/signin", "/api/v1/runs", "/nothing"):
            policy = client.get(path, headers=HTML, follow_redirects=True).headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "img-src 'self' data:" in policy
            assert "frame-ancestors 'none'" in policy
        assert "'unsafe-inline'" not in client.get("/", headers=HTML).headers["content-security-policy"]


def test_streams_and_errors_pass_through(site: Site) -> None:
    run = site.api.client().submit("tiny", name="proxied")
    with signed_in(site) as client:
        missing = client.get("/api/v1/runs/r_000000000000")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
        with client.stream("GET", f"/api/v1/runs/{run.id}/events", headers={"Accept": "text/event-stream"}) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("data:"))
        odd = client.get("/api/v1/runs", params={"search": "a b&c=d/é"})
        assert odd.status_code == 200
        assert client.post("/api/v1/runs", content="[", headers={"Content-Type": "application/json"}).status_code == 422


def test_services_that_are_down_are_named(tmp_path: Path) -> None:
    sessions = Sessions("s" * 40)
    nobody = "http://127.0.0.1:1"
    with TestClient(create_app(Platforms(nobody, nobody), sessions), base_url="http://127.0.0.1") as http:
        answer = http.post("/signin", json={"key": "nc_x"})
        assert answer.status_code == 502
        assert "127.0.0.1:1" in answer.json()["detail"]
