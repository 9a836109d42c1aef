"""Models are added and removed while the service runs: a newer model, a second one, a corrupt one, one that must make room."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest

from client.inference import Inference
from nanochat.contract.contract import MANIFEST, Artifact, sha256_file
from nanochat.model import GPTConfig
from nanochat.tokenizer import Tokenizer
from services.inference.source import Entry
from tests.inference import heart
from tests.inference.conftest import OTHER
from tests.inference.heart import FOREVER, SELF, WHO
from tests.inference.server import KEY, Server, serving, wait_for

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Shelf:
    """A source whose list of models a test can change. Newest first, like the control API's."""

    def __init__(self, *entries: Entry):
        self.entries = list(entries)

    def __call__(self) -> list[Entry]:
        return list(self.entries)


@pytest.fixture
def first(model_artifact: Artifact, tokenizer_artifact: Artifact) -> Entry:
    return Entry("first", "sft", 200, EPOCH, model_artifact, tokenizer_artifact)


@pytest.fixture
def second(small_artifact: Artifact, tokenizer_artifact: Artifact) -> Entry:
    return Entry("second", "sft", 1, EPOCH + timedelta(days=1), small_artifact, tokenizer_artifact)


@pytest.fixture
def shelf(first: Entry) -> Shelf:
    return Shelf(first)


@pytest.fixture
def server(shelf: Shelf) -> Iterator[Server]:
    with serving(shelf) as running:
        running.wait_until_ready()
        yield running


def who(server: Server, model: str = "default") -> tuple[str, str | None]:
    answer = server.openai().chat.completions.create(model=model, messages=[{"role": "user", "content": WHO}], temperature=0)
    return answer.model, answer.choices[0].message.content


def loaded(server: Server) -> set[str]:
    return {m["id"] for m in server.http.get("/v1/models").json()["data"] if m["loaded"]}


def default(server: Server) -> Any:
    return server.http.get("/ready").json()["default"]


def test_a_newly_promoted_model_answers_without_a_restart(server: Server, shelf: Shelf, second: Entry) -> None:
    assert who(server) == ("first", SELF)
    shelf.entries.insert(0, second)
    wait_for(lambda: default(server) == "second", "swapped in")
    assert who(server) == ("second", OTHER)
    assert who(server, "first") == ("first", SELF)
    assert [m.id for m in server.openai().models.list().data] == ["second", "first"]


def test_a_running_answer_finishes_on_its_model(server: Server, shelf: Shelf, second: Entry) -> None:
    messages: list[Any] = [{"role": "user", "content": FOREVER}]
    stream = server.openai().chat.completions.create(
        model="default", messages=messages, temperature=0, max_tokens=350, stream=True
    )
    chunks = iter(stream)
    next(chunks)
    shelf.entries[:] = [second]
    wait_for(lambda: default(server) == "second", "swapped in")
    rest = list(chunks)
    assert {c.model for c in rest} == {"first"}
    assert rest[-1].choices[0].finish_reason == "length"
    with pytest.raises(openai.NotFoundError):
        who(server, "first")


def test_a_swap_under_load_fails_no_request(server: Server, shelf: Shelf, second: Entry) -> None:
    ends: Counter[tuple[int, str | None, str | None]] = Counter()
    enough = threading.Event()

    def ask() -> None:
        body = {"messages": [{"role": "user", "content": WHO}], "temperature": 0}
        while not enough.is_set():
            response = server.http.post("/v1/chat/completions", json=body)
            answer = response.json()
            text = answer["choices"][0]["message"]["content"] if response.status_code == 200 else response.text
            ends[response.status_code, answer.get("model"), text] += 1

    old, new = (200, "first", SELF), (200, "second", OTHER)
    clients = [threading.Thread(target=ask) for _ in range(8)]
    for client in clients:
        client.start()
    try:
        wait_for(lambda: ends[old] > 8, "under load")
        shelf.entries[:] = [second]  # the old one is gone at once; it answers until the new one is warm
        wait_for(lambda: ends[new] > 8, "swapped in")
        wait_for(lambda: loaded(server) == {"second"}, "the old one unloaded")
    finally:
        enough.set()
        for client in clients:
            client.join()
    assert set(ends) == {old, new}


def test_the_default_can_be_pinned(shelf: Shelf, first: Entry, second: Entry) -> None:
    shelf.entries[:] = [second, first]
    with serving(shelf, default_model="first") as server:
        server.wait_until_ready()
        assert who(server) == ("first", SELF)
        shelf.entries[:] = [second]
        wait_for(lambda: default(server) == "second", "the newest one in place of the pinned one")
        shelf.entries[:] = [second, first]
        wait_for(lambda: default(server) == "first", "the pinned one again")


def test_the_least_recently_used_model_makes_room(shelf: Shelf, first: Entry, second: Entry) -> None:
    shelf.entries[:] = [first, second, replace(second, id="third")]
    with serving(shelf, max_loaded=2) as server:
        server.wait_until_ready()
        assert loaded(server) == {"first"}, "only the newest is loaded unasked"
        who(server, "second")
        assert loaded(server) == {"first", "second"}
        who(server, "third")
        assert loaded(server) == {"first", "third"}, "the default stays"
        assert who(server, "second") == ("second", OTHER)


def test_a_corrupt_checkpoint_is_refused_and_the_older_one_goes_on(
    server: Server, shelf: Shelf, second: Entry, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(second.model.path, tmp_path / "broken"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    sealed = Artifact(path=str(broken), sha256=sha256_file(broken / MANIFEST))
    shelf.entries.insert(0, replace(second, id="broken", model=sealed))
    wait_for(lambda: len(server.http.get("/v1/models").json()["data"]) == 2, "listed")
    with pytest.raises(openai.InternalServerError) as caught:
        who(server, "broken")
    assert caught.value.code == "model_load_failed"
    assert "model.safetensors" in str(caught.value)
    assert who(server) == ("first", SELF)


def test_a_client_that_names_no_model_gets_one_that_loads(server: Server, shelf: Shelf, second: Entry, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shelf.entries.insert(0, replace(second, id="gone", model=Artifact(path=str(tmp_path / "empty"), sha256="0" * 64)))
    wait_for(lambda: len(server.http.get("/v1/models").json()["data"]) == 2, "listed")
    question: Any = [{"role": "user", "content": WHO}]
    with Inference(server.url, KEY) as client:
        assert client.models()[0] == "gone"
        assert client.chat(question, temperature=0) == SELF
        assert "".join(client.chat(question, stream=True, temperature=0)) == SELF


def test_a_checkpoint_of_another_tokenizer_is_refused(
    shelf: Shelf, second: Entry, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    stranger = heart.learn(
        GPTConfig(sequence_len=64, vocab_size=tokenizer.vocab_size, n_layer=1, n_head=1, n_kv_head=1, n_embd=32),
        tokenizer,
        conversations=[("a", "b")],
    )
    shelf.entries[:] = [replace(second, model=stranger.save(tmp_path, 1, "0" * 64))]
    with serving(shelf) as server:
        wait_for(lambda: bool(server.http.get("/v1/models").json()["data"]), "listed")
        with pytest.raises(openai.InternalServerError) as caught:
            who(server, "second")
    assert "another tokenizer" in str(caught.value)
