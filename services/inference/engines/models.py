"""Loads a model into an engine and warms it up."""

from __future__ import annotations

import torch

from nanochat.contract.contract import StageError, verify
from nanochat.distributed import native_dtype
from nanochat.engine import Engine, Sampling
from nanochat.engine.runner import narrow
from nanochat.tokenizer import Tokenizer
from nanochat.train.checkpoint import load_model
from services.inference.engines.wire import Load, Setup

PROMPTS = (20, 200, 600, 2000)  # tokens


def load(command: Load, device: str, setup: Setup) -> Engine:
    """Verify both artifacts against their digests, load them and warm up. Raises StageError naming the wrong file."""
    tokenizer = Tokenizer.load(verify(command.tokenizer))
    model, meta = load_model(verify(command.weights), device)
    made_for = meta.get("tokenizer_sha256")
    if made_for and made_for != command.tokenizer.sha256:
        raise StageError(
            f"checkpoint {command.weights.path} was trained with another tokenizer than {command.tokenizer.path}",
            code="config_mismatch",
            hint="give the tokenizer of the same run",
        )
    narrow(model, native_dtype(torch.device(device))).eval()
    engine = Engine(model, tokenizer, max_rows=setup.max_rows, cache_share=setup.cache_share)
    _warm_up(engine, device, setup.max_rows)
    return engine


def _warm_up(engine: Engine, device: str, max_rows: int) -> None:
    """Generate a token. On a GPU, capture the graph of each number of rows, and read prompts of several lengths, alone and together.

    Kernels are compiled and libraries set up by their first use: the first 32 prompts of a d20 took 1.8 s longer than the next.
    """
    if not device.startswith("cuda"):
        engine.generate_batch([engine.tokenizer.bos], max_tokens=2, temperature=0.0)
        return
    rows = 1
    while True:
        engine.generate_batch([engine.tokenizer.bos], num_samples=rows, max_tokens=2, temperature=0.0)
        if rows >= max_rows:
            break
        rows = min(2 * rows, max_rows)
    for together in (1, 4):
        for length in PROMPTS:
            for first in range(together):  # prompts with different beginnings share no block
                prompt = [engine.tokenizer.bos, first, *[together] * (min(length, engine.context - 2) - 2)]
                engine.add(prompt, Sampling(), max_tokens=2)
            for _ in engine.finished():
                pass
