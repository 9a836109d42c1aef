"""Flat buffers of parameters whose optimizer state is sharded over the ranks (ZeRO stage 1, Rajbhandari et al. 2020).

Every rank holds all weights and all of its own gradients, and owns an equal slice of each buffer. Per step, gradients are
reduce-scattered, so that each owner receives the sum for its slice; the owner updates that slice, with the only copy of its
optimizer state; the slices are all-gathered. (Stage 2 would also free the gradients outside a rank's slice.) Weights and
gradients live in these buffers from the start, so one collective moves a whole group without copying.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from nanochat.distributed import Ranks


class Bucket:
    """`params` and their gradients as views of two flat buffers. `unit` elements (a matrix for Muon) are never split between
    ranks.

    The buffers are padded with zeros to a multiple of the world size, so any vocabulary and any number of ranks will do.
    """

    def __init__(self, name: str, params: Sequence[Tensor], ranks: Ranks, unit: int = 1):
        self.name, self.ranks, self.unit = name, ranks, unit
        self.numel = sum(p.numel() for p in params)
        self.shard = -(-self.numel // (unit * ranks.world_size)) * unit
        like = params[0]
        self.weights = torch.zeros(self.shard * ranks.world_size, dtype=like.dtype, device=like.device)
        self.grads = torch.zeros_like(self.weights)
        offset = 0
        for param in params:
            span = slice(offset, offset + param.numel())
            self.weights[span] = param.detach().flatten()
            param.data = self.weights[span].view_as(param)
            param.grad = self.grads[span].view_as(param)
            offset += param.numel()
        own = slice(ranks.rank * self.shard, (ranks.rank + 1) * self.shard)
        self.own_weights = self.weights[own]
        self.own_grads = self.grads if ranks.world_size == 1 else torch.empty_like(self.own_weights)

    def broadcast(self) -> None:
        """Copy rank 0's weights to every rank."""
        if self.ranks.world_size > 1:
            dist.broadcast(self.weights, src=0)

    def reduce(self) -> dist.Work | None:
        """Start the reduce-scatter into `own_grads`. The result is a sum over ranks, because gloo cannot average."""
        if self.ranks.world_size == 1:
            return None
        return dist.reduce_scatter_tensor(self.own_grads, self.grads, async_op=True)

    def gather(self) -> dist.Work | None:
        """Start the all-gather of every owner's updated weights."""
        if self.ranks.world_size == 1:
            return None
        return dist.all_gather_into_tensor(self.weights, self.own_weights.clone(), async_op=True)

    def reshard(self, shards: Sequence[Tensor], own: int) -> Tensor:
        """This rank's slice, `own` elements long, of a state saved by another number of ranks. `shards` are in rank order.

        A state tensor has equally many elements for every unit of the weights: one per weight, or fewer.
        """
        held = self.numel // self.unit * (own * self.unit // self.shard)
        whole = torch.zeros(own * self.ranks.world_size, dtype=shards[0].dtype)
        whole[:held] = torch.cat(list(shards))[:held]
        return whole[self.ranks.rank * own : (self.ranks.rank + 1) * own]


def wait(works: Sequence[dist.Work | None]) -> None:
    """Wait for collectives to finish. None stands for one that a single rank does not need."""
    for work in works:
        if work is not None:
            work.wait()
