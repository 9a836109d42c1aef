"""The one optimizer, over any number of ranks: average the gradients, clip by their global norm, update, share.

No wrapper around the model: ranks run their own forward and backward passes and meet here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from nanochat.distributed import Ranks
from nanochat.model import GPT
from nanochat.optim.adamw import adamw_update
from nanochat.optim.muon import muon_update
from nanochat.optim.sharding import Bucket, wait
from nanochat.recipe import OptimSpec

BETAS = (0.8, 0.95)
EPS = 1e-10
LR_WIDTH = 768  # the width at which the learning rates of embedding and head were tuned


@dataclass(slots=True)
class Group:
    """A bucket, its learning rate and this rank's slice of the optimizer's state."""

    bucket: Bucket
    lr: float
    state: dict[str, Tensor]
    matrix: tuple[int, int] | None = None  # (R, C) for Muon, None for AdamW


class Optimizer:
    """Takes over the storage of the model's parameters and gradients: use `zero_grad` here, never the module's.

    `lr_scale` multiplies every learning rate; the width factor (C / 768)^-0.5 falls on embedding and head only.
    """

    def __init__(self, model: GPT, spec: OptimSpec, ranks: Ranks, *, lr_scale: float = 1.0, compiled: bool = False):
        self.spec, self.ranks, self.steps = spec, ranks, 0
        width = (model.config.n_embd / LR_WIDTH) ** -0.5
        self.groups = [
            self._adamw("embed", model.embed.weight, spec.embedding_lr * width * lr_scale),
            self._adamw("lm_head", model.lm_head.weight, spec.unembedding_lr * width * lr_scale),
            *self._muon(model.blocks.parameters(), spec.matrix_lr * lr_scale),
        ]
        if sum(g.bucket.numel for g in self.groups) != model.num_params():
            raise ValueError("a parameter of the model belongs to no group of the optimizer")
        for group in self.groups:
            group.bucket.broadcast()
        # The scalars travel as 0-D tensors, so that a new learning rate does not compile the update anew.
        self._adamw_update = _maybe_compiled(adamw_update, compiled)
        self._muon_update = _maybe_compiled(muon_update, compiled)

    def zero_grad(self) -> None:
        for group in self.groups:
            group.bucket.grads.zero_()

    @torch.no_grad()
    def step(self, lrm: float, momentum: float) -> Tensor:
        """One update with the learning rates times `lrm`. Returns the norm (0-D) of the averaged gradient, before clipping."""
        wait([g.bucket.reduce() for g in self.groups])
        norm = self._grad_norm()
        scale = torch.full_like(norm, 1 / self.ranks.world_size)
        if self.spec.grad_clip:
            scale *= (self.spec.grad_clip / (norm + 1e-6)).clamp(max=1.0)
        self.steps += 1
        works = []
        for group in self.groups:
            self._update(group, scale, torch.tensor(group.lr * lrm), torch.tensor(momentum))
            works.append(group.bucket.gather())
        wait(works)
        return norm

    def state(self) -> dict[str, Tensor]:
        """This rank's slice of the state, by name; flat, so that any other number of ranks can take it over."""
        return {f"{g.bucket.name}.{key}": value for g in self.groups for key, value in g.state.items()}

    def load(self, shards: Sequence[Mapping[str, Tensor]], steps: int) -> None:
        """Take over the state after `steps` updates: this rank's own slice, or the slices of all ranks that wrote it.

        Raises KeyError or RuntimeError when they are not slices of this optimizer's state.
        """
        self.steps = steps
        for group in self.groups:
            for key, value in group.state.items():
                parts = [shard[f"{group.bucket.name}.{key}"] for shard in shards]
                value.copy_(parts[0] if len(parts) == 1 and parts[0].shape == value.shape else group.bucket.reshard(parts))

    # -- groups --

    def _adamw(self, name: str, param: Tensor, lr: float) -> Group:
        bucket = Bucket(name, [param], self.ranks)
        return Group(bucket, lr, {key: torch.zeros_like(bucket.own_weights) for key in ("exp_avg", "exp_avg_sq")})

    def _muon(self, params: Iterable[Tensor], lr: float) -> list[Group]:
        """Matrices stacked by shape, so that the iteration runs on many at once."""
        by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for param in params:
            by_shape[(param.size(0), param.size(1))].append(param)
        groups = []
        for (rows, columns), same in sorted(by_shape.items()):
            bucket = Bucket(f"muon_{rows}x{columns}", same, self.ranks, unit=rows * columns)
            groups.append(Group(bucket, lr, {"momentum": torch.zeros_like(bucket.own_weights)}, (rows, columns)))
        return groups

    # -- one step --

    def _grad_norm(self) -> Tensor:
        squares = torch.stack([g.bucket.own_grads.square().sum() for g in self.groups]).sum()
        if self.ranks.world_size > 1:
            dist.all_reduce(squares)
        return squares.sqrt() / self.ranks.world_size

    def _update(self, group: Group, scale: Tensor, lr: Tensor, momentum: Tensor) -> None:
        bucket = group.bucket
        if group.matrix is None:
            self._adamw_update(
                bucket.own_weights,
                bucket.own_grads,
                group.state["exp_avg"],
                group.state["exp_avg_sq"],
                scale=scale,
                lr=lr,
                step=torch.tensor(float(self.steps)),
                beta1=BETAS[0],
                beta2=BETAS[1],
                eps=EPS,
                weight_decay=self.spec.weight_decay,
            )
            return
        stack = (-1, *group.matrix)
        self._muon_update(
            bucket.own_weights.view(stack),
            bucket.own_grads.view(stack),
            group.state["momentum"].view(stack),
            scale=scale,
            lr=lr,
            momentum=momentum,
            dtype=self.ranks.dtype,
        )


def _maybe_compiled(function: Callable[..., None], compiled: bool) -> Callable[..., None]:
    return torch.compile(function, dynamic=False, fullgraph=True) if compiled else function
