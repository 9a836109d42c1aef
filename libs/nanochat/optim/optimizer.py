"""The one optimizer, for any number of ranks: average gradients, clip by their global norm, update own shards, all-gather
weights.

The model needs no wrapper: each rank runs its own forward and backward pass; the ranks communicate only here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from nanochat.config.model_spec import AdamSpec, OptimSpec
from nanochat.distributed import Ranks
from nanochat.model import GPT
from nanochat.optim.adamw import adamw_update
from nanochat.optim.muon import ITERATIONS, muon_update
from nanochat.optim.sharding import Bucket, wait

EPS = 1e-10
LR_WIDTH = 768  # model width at which the learning rates of embedding and head were tuned


@dataclass(slots=True)
class Group:
    """A bucket, its learning rate and this rank's shard of the optimizer state."""

    bucket: Bucket
    lr: float
    state: dict[str, Tensor]
    matrix: tuple[int, int] | None = None  # (R, C) of the stacked matrices for Muon, None for AdamW
    adam: AdamSpec | None = None


class Optimizer:
    """Owns the storage of the model's parameters and gradients. Clear gradients with this `zero_grad`, never with the module's.

    `lr_scale` multiplies every learning rate. Embeddings and head are also scaled by the width factor (C / 768)^-0.5.
    """

    def __init__(self, model: GPT, spec: OptimSpec, ranks: Ranks, *, lr_scale: float = 1.0, compiled: bool = False):
        self.spec, self.ranks, self.steps = spec, ranks, 0
        self.carried: dict[str, Tensor] = {}  # this rank's extra tensors: saved and loaded with the state, never updated here
        width = (model.config.n_embd / LR_WIDTH) ** -0.5
        self.groups = [
            *(
                self._adamw(name, params, adam, adam.lr * width * lr_scale)
                for name, params, adam in _vocabulary_tables(model, spec)
            ),
            *(
                self._adamw(name, params, adam, adam.lr * lr_scale)
                for name, params, adam in _other_parameters(model, spec)
                if params
            ),
            *self._muon(model.blocks.parameters(), spec.matrix_lr * lr_scale),
        ]
        if sum(g.bucket.numel for g in self.groups) != model.num_params():
            raise ValueError("a parameter of the model belongs to no group of the optimizer")
        for group in self.groups:
            group.bucket.broadcast()
        # Scalars are passed as 0-D tensors: a Python number would recompile the update whenever it changes.
        self._adamw_update = _maybe_compiled(adamw_update, compiled)
        self._muon_update = _maybe_compiled(muon_update, compiled)

    def zero_grad(self) -> None:
        """Set every gradient to zero. The tensors stay in place, because other code holds references to them."""
        for group in self.groups:
            group.bucket.grads.zero_()

    @torch.no_grad()
    def step(self, lrm: float, momentum: float, decay: float = 1.0, *, targets: int | None = None) -> Tensor:
        """One update. `lrm` multiplies the learning rates, `decay` the matrices' weight decay.

        The ranks' gradients are averaged. With `targets`, this rank's gradient is a sum over that many targets, and the sum over
        all ranks is divided by the targets of all ranks; their number stays on the device, so the host waits for nothing.

        Launches every reduce-scatter at once. Each group's update then overlaps with the communication of its neighbours: the
        gradients of the next group arrive while the weights of the previous one are gathered.

        Returns the norm (0-D) of the averaged gradient before clipping.
        """
        parts = self._parts(targets)  # first: behind the gradients it would wait for all of them
        reductions = [g.bucket.reduce() for g in self.groups]
        scale = torch.full((), 1 / parts, device=self.ranks.device) if isinstance(parts, int) else parts.reciprocal()
        norm = None
        if self.spec.grad_clip:  # the norm covers all gradients, so the first update waits for every group
            wait(reductions)
            norm = self._grad_norm(parts)
            scale = scale * (self.spec.grad_clip / (norm + 1e-6)).clamp(max=1.0)
        self.steps += 1
        gathers = []
        for group, work in zip(self.groups, reductions, strict=True):
            wait([work])
            lr = torch.tensor(group.lr * lrm)
            if group.adam:
                self._update_adamw(group, group.adam, scale, lr)
            else:
                self._update_muon(group, scale, lr, torch.tensor(momentum), decay)
            gathers.append(group.bucket.gather())
        norm = self._grad_norm(parts) if norm is None else norm
        wait(gathers)
        return norm

    def state(self) -> dict[str, Tensor]:
        """This rank's shard of the state, by name. All tensors are flat, so that another number of ranks can take them over."""
        return {f"{g.bucket.name}.{key}": value for g in self.groups for key, value in g.state.items()} | self.carried

    def load(self, shards: Sequence[Mapping[str, Tensor]], steps: int) -> None:
        """Restore the state after `steps` updates, from this rank's own shard or from the shards of all ranks that saved it.

        Raises KeyError or RuntimeError if they are not shards of this optimizer's state.
        """
        self.steps = steps
        for key, value in self.carried.items():
            if len(shards) == 1 and key in shards[0]:  # otherwise, as after a change of world size, they start afresh
                value.copy_(shards[0][key])
        for group in self.groups:
            for key, value in group.state.items():
                parts = [shard[f"{group.bucket.name}.{key}"] for shard in shards]
                value.copy_(
                    parts[0]
                    if len(parts) == 1 and parts[0].shape == value.shape
                    else group.bucket.reshard(parts, value.numel())
                )

    # -- groups --

    def _adamw(self, name: str, params: Sequence[Tensor], adam: AdamSpec, lr: float) -> Group:
        bucket = Bucket(name, params, self.ranks)
        state = {key: torch.zeros_like(bucket.own_weights) for key in ("exp_avg", "exp_avg_sq")}
        return Group(bucket, lr, state, adam=adam)

    def _muon(self, params: Iterable[Tensor], lr: float) -> list[Group]:
        """One group per matrix shape: equal shapes are stacked, so that one iteration runs on many matrices."""
        by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for param in params:
            by_shape[(param.size(0), param.size(1))].append(param)
        groups = []
        for (rows, columns), same in sorted(by_shape.items()):
            bucket = Bucket(f"muon_{rows}x{columns}", same, self.ranks, unit=rows * columns)
            state = {"momentum": torch.zeros_like(bucket.own_weights)}
            if self.spec.normuon_beta2 is not None:
                state["squares"] = bucket.own_weights.new_zeros(bucket.shard // min(rows, columns))
            groups.append(Group(bucket, lr, state, (rows, columns)))
        return groups

    # -- one step --

    def _parts(self, targets: int | None) -> Tensor | int:
        """What the sum of all ranks' gradients is divided by."""
        if targets is None:
            return self.ranks.world_size
        total = torch.full((), float(targets), device=self.ranks.device)  # fp32 counts exactly up to 16 million
        if self.ranks.world_size > 1:
            dist.all_reduce(total)
        return total.clamp(min=1)

    def _grad_norm(self, parts: Tensor | int) -> Tensor:
        squares = torch.stack([torch.linalg.vector_norm(g.bucket.own_grads) for g in self.groups]).square().sum()
        if self.ranks.world_size > 1:
            dist.all_reduce(squares)
        return squares.sqrt() / parts

    def _update_adamw(self, group: Group, adam: AdamSpec, scale: Tensor, lr: Tensor) -> None:
        self._adamw_update(
            group.bucket.own_weights,
            group.bucket.own_grads,
            group.state["exp_avg"],
            group.state["exp_avg_sq"],
            scale=scale,
            lr=lr,
            step=torch.tensor(float(self.steps)),
            beta1=adam.betas[0],
            beta2=adam.betas[1],
            eps=EPS,
            weight_decay=adam.weight_decay,
        )

    def _update_muon(self, group: Group, scale: Tensor, lr: Tensor, momentum: Tensor, decay: float) -> None:
        assert group.matrix
        rows, columns = group.matrix
        squares, weight_decay = group.state.get("squares"), self.spec.matrix_weight_decay
        self._muon_update(
            group.bucket.own_weights.view(-1, rows, columns),
            group.bucket.own_grads.view(-1, rows, columns),
            group.state["momentum"].view(-1, rows, columns),
            scale=scale,
            lr=lr,
            momentum=momentum,
            dtype=self.ranks.dtype,
            iteration=ITERATIONS[self.spec.orthogonalizer],
            squares=squares.view(-1, max(rows, columns)) if squares is not None else None,
            beta2=self.spec.normuon_beta2,
            weight_decay=torch.tensor(weight_decay * decay) if weight_decay else None,
        )


AdamParams = tuple[str, list[Tensor], AdamSpec]


def _vocabulary_tables(model: GPT, spec: OptimSpec) -> list[AdamParams]:
    """Tables over the vocabulary: embedding, head and value embeddings. Their learning rates fall with the model's width."""
    embed_decay, head_decay = (
        spec.weight_decay if own is None else own for own in (spec.embedding_weight_decay, spec.unembedding_weight_decay)
    )
    embed = AdamSpec(lr=spec.embedding_lr, betas=spec.embedding_betas, weight_decay=embed_decay)
    head = AdamSpec(lr=spec.unembedding_lr, betas=spec.unembedding_betas, weight_decay=head_decay)
    tables: list[AdamParams] = [("embed", [model.embed.weight], embed), ("lm_head", [model.lm_head.weight], head)]
    values: list[Tensor] = list(model.value_embeds.parameters())
    return [*tables, ("value_embeds", values, spec.value_embeds)] if values else tables


def _other_parameters(model: GPT, spec: OptimSpec) -> list[AdamParams]:
    """The few parameters outside the blocks that are not vocabulary tables: residual scalars, smear and backout."""
    of = {name: param for name, param in model.named_parameters() if "." not in name or name.startswith("smear.")}
    smear: list[Tensor] = [param for name, param in of.items() if name not in ("resid", "x0")]
    tables: list[AdamParams] = [(name, [of[name]] if name in of else [], getattr(spec, name)) for name in ("resid", "x0")]
    return [*tables, ("smear", smear, spec.smear)]


def _maybe_compiled(function: Callable[..., None], compiled: bool) -> Callable[..., None]:
    return torch.compile(function, dynamic=False, fullgraph=True) if compiled else function
