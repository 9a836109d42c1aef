"""What one measurement of training speed runs, and the configurations that have a name. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Configuration:
    recipe: str = "speedrun"  # gives the switches of the model and the optimizer; the sizes are those below
    depth: int = 20
    vocab: int = 65_536
    seq_len: int = 2048
    batch: int = 32
    total_batch: int = 524_288  # tokens per step
    plain: bool = False  # as nanochat: compiled, but none of our kernels, all logits at once, one matrix at a time in Muon
    fp8: bool = False
    seconds: float = 20.0  # measured, after `warm_s` of the same work, because a cold card is faster than a warm one
    warm_s: float = 10.0
    profile: bool = False


CONFIGURATIONS = {
    "plain": Configuration(plain=True),
    "bf16": Configuration(),
    "fp8": Configuration(fp8=True),
    "modern": Configuration(recipe="modern", vocab=32_768),
}
QUICK = {"depth": 4, "vocab": 2048, "seq_len": 256, "batch": 4, "total_batch": 2048, "seconds": 3.0, "warm_s": 1.0}
