"""A real tokenizer and a tiny real model that has memorized a few conversations, so that its answers are known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import rustbpe
from nanochat.contract.contract import Artifact, seal
from nanochat.model import GPTConfig
from nanochat.tokenizer import Tokenizer
from services.inference.source import fixed
from tests.inference import heart
from tests.inference.server import Server, serving

TEXT = (
    "the quick brown fox jumps over the lazy dog and the cat sat on the mat while it rained in spain",
    "who are you? i am a small model. spell banana: b a n a n a. what is 12 + 7? it is 19.",
    "日本語 🎉🚀 naïve café",
)
VOCAB = 300
OTHER = "I am the second model."


def made_tokenizer() -> Tokenizer:
    return Tokenizer.from_merges(rustbpe.train(list(TEXT) * 4, VOCAB))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return made_tokenizer()


@pytest.fixture(scope="session")
def tokenizer_artifact(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(directory)
    return seal(directory, name="tokenizer", stage="tok_train")


@pytest.fixture(scope="session")
def learnt(tokenizer: Tokenizer) -> heart.Learnt:
    """A model that was trained for a few seconds on `heart.CONVERSATIONS`."""
    config = GPTConfig(sequence_len=1024, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_kv_head=2, n_embd=64)
    return heart.learn(config, tokenizer)


@pytest.fixture(scope="session")
def model_artifact(learnt: heart.Learnt, tokenizer_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return learnt.save(tmp_path_factory.mktemp("model"), 200, tokenizer_artifact.sha256)


@pytest.fixture(scope="session")
def small_artifact(tokenizer: Tokenizer, tokenizer_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A model with a short context that knows one answer, OTHER."""
    config = GPTConfig(sequence_len=128, vocab_size=tokenizer.vocab_size, n_layer=1, n_head=2, n_kv_head=2, n_embd=32)
    learnt = heart.learn(config, tokenizer, seed=1, conversations=[(heart.WHO, OTHER)])
    return learnt.save(tmp_path_factory.mktemp("small"), 1, tokenizer_artifact.sha256)


@pytest.fixture(scope="module")
def server(model_artifact: Artifact, tokenizer_artifact: Artifact) -> Iterator[Server]:
    with serving(fixed(model_artifact.dir, tokenizer_artifact.dir)) as running:
        running.wait_until_ready()
        yield running
