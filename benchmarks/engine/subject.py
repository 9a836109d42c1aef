"""The model that is measured: a recipe's shape with random weights, and what one step of it must read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nanochat import kernels
from nanochat.config.recipe import resolve
from nanochat.config.shape import GPTConfig, matrix_params
from nanochat.engine.runner import narrow
from nanochat.model import GPT, init_weights

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SPECIALS = ("assistant_end", "python_start", "python_end", "output_start", "output_end")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Which model runs where. `context` is long enough for every prompt that is measured."""

    recipe: str
    depth: int
    context: int
    dtype: str
    device: str

    @property
    def config(self) -> GPTConfig:
        recipe = resolve(self.recipe, {"model.depth": self.depth})
        return replace(GPTConfig.of(recipe.model, recipe.tokenizer.vocab_size), sequence_len=self.context)

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    def build(self, seed: int = 1) -> GPT:
        """The model in its dtype."""
        return narrow(self.trainable(seed), self.torch_dtype).eval()

    def trainable(self, seed: int = 1) -> GPT:
        """The model in fp32, as training has it. Projections that training starts at zero get weights of a usual size."""
        torch.manual_seed(seed)
        device = torch.device(self.device)
        if device.type == "cuda":
            kernels.detect(device)
        with device:
            model = GPT(self.config)
        init_weights(model)
        with torch.no_grad():
            for param in model.parameters():
                if not param.any():
                    param.normal_(std=0.5 * (param.size(-1) if param.ndim else 1) ** -0.5)
            model.lm_head.weight[: Specials.count] = 0  # never among the likely tokens, so that no answer ends early
        return model

    def bytes_per_step(self, rows: int, context: float) -> float:
        """Bytes that a decoding step of `rows` rows must read at least: each weight once, and all keys and values."""
        config, width = self.config, self.torch_dtype.itemsize
        weights = matrix_params(config) + config.vocab_size * config.n_embd
        seen = sum(min(config.window_of(layer) or context, context) for layer in range(config.n_layer))
        return width * (weights + rows * 2 * config.n_kv_head * config.head_dim * seen)

    def prefill_flops(self, tokens: int) -> float:
        """FLOPs to read one prompt: the matrices for every token, attention under its causal mask, the head for one token."""
        config = self.config
        pairs = 0.0
        for layer in range(config.n_layer):
            window = min(config.window_of(layer) or tokens, tokens)
            pairs += window * (window + 1) / 2 + (tokens - window) * window
        return 2 * matrix_params(config) * tokens + 4 * config.n_embd * pairs + 2 * config.vocab_size * config.n_embd


class Specials:
    """In place of a tokenizer: the engine asks it only for the ids of special tokens, as long as there are no tool calls."""

    count = len(SPECIALS) + 1
    bos = 0
    vocab_size = 0

    def special(self, name: str) -> int:
        return 1 + SPECIALS.index(name.strip("<|>"))

    def decode(self, tokens: list[int]) -> str:
        raise AssertionError("a model with these weights calls no tool")

    encode = decode


class Prompts:
    """Random prompts, none of which begins like another, so that no prefix is in the cache."""

    def __init__(self, vocab_size: int):
        self._vocab_size, self._generator = vocab_size, torch.Generator().manual_seed(1)

    def __call__(self, count: int, tokens: int) -> list[list[int]]:
        ids: Tensor = torch.randint(Specials.count, self._vocab_size, (count, tokens), generator=self._generator)
        found: list[list[int]] = ids.tolist()
        return found
