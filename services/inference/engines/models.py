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

CACHE = {"model": None, "fp8": torch.float8_e4m3fn}  # setting -> dtype of keys and values


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
    try:
        engine = Engine(
            model,
            tokenizer,
            max_rows=setup.max_rows,
            cache_share=setup.cache_share,
            cache_dtype=CACHE[setup.kv_cache],
            int8=setup.weights == "int8",
        )
    except ValueError as err:
        raise StageError(
            str(err), code="unsupported_device", hint="start the service without --kv-cache and --weights"
        ) from err
    engine.warm_up()
    return engine
