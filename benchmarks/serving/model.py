"""A sealed checkpoint with random weights, and a tokenizer whose every likely token is printable ASCII.

So each token is sent as soon as it is made: text that could be part of a longer character would be held back.
"""

from __future__ import annotations

import itertools
import json
import string
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

import rustbpe
from benchmarks.engine.subject import Subject
from nanochat.config.recipe import SPECIAL_TOKENS
from nanochat.contract.contract import seal
from nanochat.tokenizer import Tokenizer

PRINTABLE = (string.ascii_letters + string.digits + string.punctuation).encode()


def write(folder: Path, subject: Subject) -> tuple[int, int]:
    """Write `folder/model` and `folder/tokenizer`. Returns the bounds of the ids that answers and prompts consist of."""
    size = subject.config.vocab_size - len(SPECIAL_TOKENS)
    longer = (bytes(parts) for length in (2, 3) for parts in itertools.product(PRINTABLE, repeat=length))
    ranks = [*(bytes([byte]) for byte in range(256)), *itertools.islice(longer, size - 256)]
    Tokenizer.from_merges(rustbpe.Tokenizer(ranks)).save(folder / "tokenizer")
    model = subject.build()
    with torch.no_grad():
        model.lm_head.weight[:256] = 0  # single bytes and special tokens are never among the likely ones
        model.lm_head.weight[size:] = 0
    (folder / "model").mkdir()
    save_file(model.state_dict(), folder / "model" / "model.safetensors")
    (folder / "model" / "meta.json").write_text(json.dumps({"model_config": asdict(subject.config)}), encoding="utf-8")
    seal(folder / "tokenizer")
    seal(folder / "model")
    return 256, size
