"""Muon for the blocks' matrices and AdamW for embedding and head, sharded over any number of ranks."""

from nanochat.optim.optimizer import Optimizer

__all__ = ["Optimizer"]
