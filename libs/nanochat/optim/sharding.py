"""Parameters side by side in one buffer, of which every rank owns an equal slice (ZeRO stage 2, Rajbhandari et al. 2020).

Because weights and gradients live in the buffer from the start, one collective moves a whole group with no copy: gradients
are summed into their owner, the owner updates its slice, and the slices are gathered back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from nanochat.distributed import Ranks


class Bucket:
    """`params` as views of one flat buffer. `unit` elements are never split between ranks (a matrix for Muon).

    The buffer is padded with zeros so that it divides: any vocabulary and any number of ranks will do.
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
            here = slice(offset, offset + param.numel())
            self.weights[here] = param.detach().flatten()
            param.data = self.weights[here].view_as(param)
            param.grad = self.grads[here].view_as(param)
            offset += param.numel()
        mine = slice(ranks.rank * self.shard, (ranks.rank + 1) * self.shard)
        self.own_weights = self.weights[mine]
        self.own_grads = self.grads if ranks.world_size == 1 else torch.empty_like(self.own_weights)

    def broadcast(self) -> None:
        """Rank 0's weights on every rank."""
        if self.ranks.world_size > 1:
            dist.broadcast(self.weights, src=0)

    def reduce(self) -> dist.Work | None:
        """Start summing every rank's gradients into the owners' `own_grads`. Gloo has no average, so this is the sum."""
        if self.ranks.world_size == 1:
            return None
        return dist.reduce_scatter_tensor(self.own_grads, self.grads, async_op=True)

    def gather(self) -> dist.Work | None:
        """Start handing every owner's updated weights to all."""
        if self.ranks.world_size == 1:
            return None
        return dist.all_gather_into_tensor(self.weights, self.own_weights.clone(), async_op=True)

    def reshard(self, shards: Sequence[Tensor], own: int) -> Tensor:
        """This rank's slice, of `own` elements, of a state that another number of ranks wrote, in rank order.

        A state has as many elements for each unit of the weights: one for one, or fewer.
        """
        held = self.numel // self.unit * (own * self.unit // self.shard)
        whole = torch.zeros(own * self.ranks.world_size, dtype=shards[0].dtype)
        whole[:held] = torch.cat(list(shards))[:held]
        return whole[self.ranks.rank * own : (self.ranks.rank + 1) * own]


def wait(works: Sequence[dist.Work | None]) -> None:
    for work in works:
        if work is not None:
            work.wait()
