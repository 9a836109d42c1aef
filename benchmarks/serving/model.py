"""A sealed checkpoint with random weights and the tokenizer of `vocabulary`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.engine.subject import Subject
from benchmarks.serving.vocabulary import write_tokenizer
from nanochat.contract.contract import seal


def write(folder: Path, subject: Subject) -> tuple[int, int]:
    """Write `folder/model` and `folder/tokenizer`. Returns the bounds of the ids that answers and prompts consist of."""
    first, size = write_tokenizer(folder / "tokenizer", subject.config.vocab_size)
    model = subject.build()
    with torch.no_grad():
        model.lm_head.weight[:first] = 0  # single bytes and special tokens are never among the likely ones
        model.lm_head.weight[size:] = 0
    (folder / "model").mkdir()
    save_file(model.state_dict(), folder / "model" / "model.safetensors")
    (folder / "model" / "meta.json").write_text(json.dumps({"model_config": asdict(subject.config)}), encoding="utf-8")
    seal(folder / "model")
    return first, size
