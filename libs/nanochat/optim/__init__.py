"""Muon for the blocks' matrices and AdamW for the rest, with optimizer state sharded over the ranks (ZeRO stage 1)."""

from nanochat.optim.optimizer import Optimizer

__all__ = ["Optimizer"]
