"""Each service starts from its own image's files and packages, and does its work there.

What an image lacks shows in no other test: the environment that they run in holds the packages of all images at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.deploy import whole_run
from tests.deploy.image import SERVICES, Image, resolved
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Image]:
    built: dict[str, Image] = {}

    def build(service: str) -> Image:
        if service not in built:
            built[service] = Image(service, tmp_path_factory.mktemp(service))
        return built[service]

    return build


@pytest.fixture(scope="module")
def artifacts(image: Callable[[str], Image], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Those of a whole run, made by the worker's image."""
    done = image("worker").run(str(Path(whole_run.__file__)), str(tmp_path_factory.mktemp("run")))
    assert done.returncode == 0, done.stderr[-5000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_holds_nothing_but_its_own(image: Callable[[str], Image], service: str) -> None:
    others = set().union(*(resolved([other]) for other in SERVICES)) - resolved(image(service).file.extras)
    assert others
    site = image(service).run(
        "-c", "import json, importlib.metadata as m; print(json.dumps([d.name for d in m.distributions()]))"
    )
    assert not {name.lower().replace("_", "-") for name in json.loads(site.stdout)} & others


def test_the_api_answers(image: Callable[[str], Image], empty_database_url: str, redis_url: str) -> None:
    api, env = image("api"), {"NANOCHAT_DATABASE_URL": empty_database_url, "NANOCHAT_REDIS_URL": redis_url}
    migrated = api.run(*api.entrypoint("migrate"), **env)
    assert migrated.returncode == 0, migrated.stderr
    with api.started(**env):
        key = (api.home / "keys" / "admin.key").read_text().strip()
        with httpx.Client(base_url=f"http://127.0.0.1:{api.port}", headers={"Authorization": f"Bearer {key}"}) as http:
            submitted = http.post("/v1/runs", json={"recipe": "tiny"}, timeout=60)
            assert submitted.status_code == 201, submitted.text
            assert http.get(f"/v1/runs/{submitted.json()['id']}").json()["stages"]


@pytest.mark.parametrize("queue", ["cpu", "gpu"])
def test_a_worker_is_ready_to_be_called(image: Callable[[str], Image], database_url: str, redis_url: str, queue: str) -> None:
    worker = image("worker")
    with worker.started("--queue", queue, NANOCHAT_DATABASE_URL=database_url, NANOCHAT_REDIS_URL=redis_url):
        until(lambda: "Connected to " in worker.log() and " ready." in worker.log(), "the worker to reach its broker", 60)


def test_the_workers_image_runs_every_stage(artifacts: dict[str, dict[str, str]]) -> None:
    assert {"rl.model", "report.report"} <= set(artifacts)


def test_the_inference_image_chats(image: Callable[[str], Image], artifacts: dict[str, dict[str, str]]) -> None:
    inference = image("inference")
    model, tokenizer = artifacts["sft.model"]["path"], artifacts["tok_train.tokenizer"]["path"]
    question = {"messages": [{"role": "user", "content": "What is 2 + 2?"}], "max_tokens": 4}
    with (
        inference.started("--model", model, "--tokenizer", tokenizer),
        httpx.Client(base_url=f"http://127.0.0.1:{inference.port}", timeout=60) as http,
    ):
        # Healthy comes before ready: the model is still being loaded.
        until(lambda: http.get("/ready").status_code == 200, "the model to be loaded", 120, every=0.2)
        answer = http.post("/v1/chat/completions", json=question)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] >= 1


def test_the_inference_image_waits_for_its_first_model(image: Callable[[str], Image]) -> None:
    """As Compose starts it: the API has no model yet, or is not up."""
    with image("inference").started(NANOCHAT_API_URL="http://127.0.0.1:9", NANOCHAT_API_KEY="sk-test"):
        pass


def test_the_dashboard_answers(image: Callable[[str], Image]) -> None:
    """It shows that the API is away, as Compose may start it."""
    addresses = {"NANOCHAT_API_URL": "http://127.0.0.1:9", "NANOCHAT_INFERENCE_URL": "http://127.0.0.1:9"}
    with image("ui").started(**addresses):
        page = httpx.get(
            f"http://127.0.0.1:{image('ui').port}/", headers={"Accept": "text/html"}, follow_redirects=True, timeout=60
        )
        assert page.status_code == 200
