"""Sealed checkpoints of small random models, as a training stage leaves them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from nanochat.config.recipe import resolve
from nanochat.contract.contract import seal, write_json
from nanochat.interchange.leaving import Source
from nanochat.model import GPT, GPTConfig
from nanochat.tokenizer import Tokenizer
from tests.nanochat.engine.switches import MODERN

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

VOCAB = 400
EVERY_SWITCH = "every switch"
RECIPES = ("speedrun", "d26", "run1000", "modern", EVERY_SWITCH)


@dataclass(frozen=True)
class Sealed:
    """A model in memory, and the same model as the two directories that the inference service takes."""

    gpt: GPT
    tokenizer: Tokenizer
    model_dir: Path
    tokenizer_dir: Path

    def open(self) -> Source:
        return Source.open(self.model_dir, self.tokenizer_dir)

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.gpt(ids)


def random_model(config: GPTConfig, seed: int = 1) -> GPT:
    """A model whose weights are all random, those too that training starts at zero."""
    torch.manual_seed(seed)
    model = GPT(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def seal_model(model: GPT, tokenizer: Tokenizer, root: Path) -> Sealed:
    tokenizer.save(root / "tokenizer")
    made_with = seal(root / "tokenizer")
    directory = root / "step_000007"
    directory.mkdir()
    save_file(model.state_dict(), directory / "model.safetensors")
    described = {"format": 1, "step": 7, "stage": "sft", "model_config": asdict(model.config), "score": None}
    write_json(directory / "meta.json", {**described, "tokenizer_sha256": made_with.sha256})
    seal(directory)
    return Sealed(model, tokenizer, directory, root / "tokenizer")


def config_of(recipe: str) -> GPTConfig:
    """The switches of a shipped recipe in a model of four layers, or a model with every switch on and fewer key-value heads."""
    if recipe == EVERY_SWITCH:
        return GPTConfig(64, VOCAB, 4, 4, 2, 64, **MODERN)
    small: dict[str, Any] = {"model.depth": 4, "model.aspect_ratio": 16, "model.head_dim": 32, "model.seq_len": 64}
    return GPTConfig.of(resolve(recipe, small).model, VOCAB)


@pytest.fixture(scope="session")
def sealed(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sealed]:
    """`sealed(recipe)` is a small random model of that recipe; each is made once."""
    made: dict[str, Sealed] = {}

    def get(recipe: str) -> Sealed:
        if recipe not in made:
            made[recipe] = seal_model(random_model(config_of(recipe)), tokenizer, tmp_path_factory.mktemp("sealed"))
        return made[recipe]

    return get
