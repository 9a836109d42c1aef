"""The recipes that are compared, brought to one size."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from dataclasses import dataclass
from typing import Any

from nanochat.config.recipe import resolve

SHORTER = 0.68  # of the speedrun's steps, each of which takes about 8 % longer
EVALS = 12

# Four settings differ from `modern` because a run of a few hundred small steps needs them; docs/lab/curves.md has the figures.
# - scale_lr makes the rates of a small batch smaller. In so few steps that costs more than its steadiness gains.
# - Rows that begin with a document lose the ends of long ones: 31 % of this text would stay unread. All recipes must see the
#   same text, and the validation text is one stream.
# - At 0.5, a rate made for 5,000 steps, all `x0` may drift together, up to 4.6 within 121 steps. Depending on the seed the run
#   then ends 0.05 bits per byte higher.
# - matrix_lr 0.03 gains 0.01 bits per byte at step 147.
MODERN = {"base.scale_lr": False, "base.packing": "stream", "base.optim.x0.lr": 0.05, "base.optim.matrix_lr": 0.03}


@dataclass(frozen=True)
class Sizes:
    depth: int
    seq_len: int
    vocab: int
    batch: int  # tokens per step
    steps: int


FULL = Sizes(depth=8, seq_len=1024, vocab=32_768, batch=65_536, steps=640)
QUICK = Sizes(depth=2, seq_len=128, vocab=2048, batch=1024, steps=30)

Variant = tuple[str, dict[str, Any]]  # a shipped recipe and overrides of it


def jobs(sizes: Sizes, more: dict[str, dict[str, Any]]) -> dict[str, Variant]:
    """All jobs by name; `more` has overrides of `modern` as it runs here."""
    return {
        "speedrun": ("speedrun", {}),
        "modern bf16": ("modern", MODERN),
        "modern bf16 sooner": ("modern", MODERN | {"base.num_iterations": round(SHORTER * sizes.steps)}),
        "modern fp8": ("modern", MODERN | {"base.precision": "fp8"}),
    } | {name: ("modern", MODERN | overrides) for name, overrides in more.items()}


def config(variant: Variant, sizes: Sizes, quick: bool) -> dict[str, Any]:
    """The whole recipe as a stage gets it. Raises RecipeError."""
    recipe, overrides = variant
    rows = min(64, sizes.batch // sizes.seq_len)
    common = {
        "tokenizer.vocab_size": sizes.vocab,
        "model.depth": sizes.depth,
        "model.seq_len": sizes.seq_len,
        "base.total_batch_size": sizes.batch,
        "base.device_batch_size": rows,
        "base.num_iterations": sizes.steps,
        # Packings differ in how fast they go through the text, and the order of the files must not decide what comes last.
        "base.shuffle": True,
        "base.eval_every": max(1, sizes.steps // EVALS),
        "base.eval_tokens": rows * sizes.seq_len * (2 if quick else 16),
        "base.core_every": -1,
        "base.sample_every": -1,
        "base.save_every": -1,
        "mid.total_batch_size": sizes.batch,  # must divide by the rows as well, though the mid stage does not run
    }
    return resolve(recipe, common | overrides).model_dump(mode="json")


def more_jobs(text: str) -> dict[str, dict[str, Any]]:
    """The value of --more. Raises ArgumentTypeError unless it is a JSON object of objects."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as err:
        raise ArgumentTypeError(f"{text!r} is not JSON: {err}") from err
    if not isinstance(found, dict) or not all(isinstance(overrides, dict) for overrides in found.values()):
        raise ArgumentTypeError(f'{text!r} is not of the form {{"name": {{"section.field": value}}}}')
    return found
