"""Loads a model into an engine and warms it up."""

from __future__ import annotations

import torch

from nanochat.contract.contract import StageError, verify
from nanochat.distributed import native_dtype
from nanochat.engine import Engine
from nanochat.engine.runner import narrow
from nanochat.tokenizer import Tokenizer
from nanochat.train.checkpoint import load_model
from services.inference.engines.wire import Load, Setup


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
    """Generate a token, so that kernels are compiled before the first request; on a GPU once for each graph of the decoder."""
    rows = 1
    while True:
        engine.generate_batch([engine.tokenizer.bos], num_samples=rows, max_tokens=2, temperature=0.0)
        if rows >= max_rows or not device.startswith("cuda"):
            break
        rows = min(2 * rows, max_rows)
