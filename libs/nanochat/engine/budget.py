"""How many tokens a step computes, and how many positions a block of the KV cache has, by device and model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from nanochat.config.shape import GPTConfig

SMALL_WIDTH = 512  # on a CPU, a model of this width reads 512 tokens in 12 to 31 ms


@dataclass(frozen=True, slots=True)
class Budget:
    """`block`: positions per block. `step`: tokens of prompts per step, which bounds how long a row that decodes waits. `idle`: the
    same for a step in which no row decodes. `chunk`: the least that a row reads of its prompt at a time, since a pass has a cost of
    its own. `even`: prefer chunks of one length to using the whole budget, because padding costs time.
    """

    block: int
    step: int
    idle: int
    chunk: int
    even: bool

    @classmethod
    def of(cls, config: GPTConfig, device: torch.device, step: int | None = None) -> Budget:
        """The defaults for a model on a device, or for a given `step`."""
        if device.type == "cuda":  # its kernels read 64 positions at a time, and more tokens in one pass are faster
            usual = cls(block=64, step=2048, idle=8192, chunk=512, even=False)
        elif config.n_embd <= SMALL_WIDTH:
            usual = cls(block=16, step=512, idle=512, chunk=128, even=True)
        else:
            usual = cls(block=16, step=256, idle=256, chunk=64, even=True)
        if step is None:
            return usual
        return usual._with_step(step)

    def shrunk(self, share: float) -> Budget:
        """A share of the tokens of each step, for less memory."""
        return self if share == 1 else self._with_step(max(1, int(self.step * share)))

    def _with_step(self, step: int) -> Budget:
        idle = step * (self.idle // self.step)
        return replace(self, step=step, idle=idle, chunk=max(1, min(step // 2, self.chunk)))  # two prompts share a step
