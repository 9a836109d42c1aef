"""Head, soft cap and cross entropy as one function that never holds the logits of a whole batch.

At V = 65,536 the fp32 logits of 32 x 2048 tokens take 16 GiB, and their gradient as much again. Here one chunk of rows at a
time goes through head, cap, softmax and both gradients. On a CPU a chunk stays in the cache (two cores, d4, V = 4,096: a
micro-step fell from 1.89 to 1.46 s). On a GPU it is processed in place, with two passes over its bf16 logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat import kernels

SOFTCAP = 15.0
IGNORE = -1
CHUNK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 28}  # logits per chunk, fp32: 4 MiB fit a CPU's cache, 1 GiB keeps a GPU busy
FUSED_CHUNK_ELEMENTS = 1 << 30  # 2 GiB in bf16; every further chunk costs a pass over the head's fp32 gradient


def softcap(logits: Tensor) -> Tensor:
    """Logits squeezed smoothly into (-15, 15). The result is fp32: bf16 would lose the differences between large logits."""
    return SOFTCAP * torch.tanh(logits.float() / SOFTCAP)


def head_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, reduction: str = "mean", factors: Tensor | None = None
) -> Tensor:
    """Cross entropy in nats under the soft cap. hidden (B, T, C), weight (V, C), targets (B, T), where -1 is ignored.

    Returns (B, T) for reduction "none", otherwise a scalar. "mean" divides by the number of targets that are not ignored,
    and is 0 if all are. `factors` (B,) fp32 multiply the losses of each row, for "sum" only.
    """
    x, rows = hidden.flatten(0, -2), targets.flatten()
    if reduction == "none":
        return _token_losses(x, weight, rows).view_as(targets)
    if factors is not None:
        scale = factors.repeat_interleave(targets.size(1))
    else:
        scale = 1.0 / (rows != IGNORE).sum().clamp(min=1) if reduction == "mean" else torch.ones((), device=rows.device)
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        loss: Tensor = _HeadLoss.apply(x, weight, rows, scale, kernels.usable(x))
        return loss
    return (_token_losses(x, weight, rows) * scale).sum()


def _token_losses(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The losses (N,), 0 for an ignored target. Differentiable, but then it holds all logits."""
    size = _chunk(x, weight)
    return torch.cat(
        [
            F.cross_entropy(softcap(F.linear(rows, weight)), target, ignore_index=IGNORE, reduction="none")
            for rows, target in zip(torch.split(x, size), torch.split(targets, size), strict=True)
        ]
    )


class _HeadLoss(torch.autograd.Function):
    """The sum of the token losses, each times `scale`. The forward pass already computes the gradients, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, scale: Tensor, fused: bool) -> Tensor:
        total, grad_x, grad_weight = (fused_head if fused else plain_head)(x, weight, targets, scale)
        ctx.save_for_backward(grad_x, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x * grads[0].to(grad_x.dtype), grad_weight * grads[0], None, None, None


def plain_head(x: Tensor, weight: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of the losses, each times `scale`, and its gradients with respect to x and weight.

    x (N, C), weight (V, C), targets (N,), scale 0-D or (N,).
    """
    head = weight.to(x.dtype)
    total = torch.zeros((), dtype=torch.float32, device=x.device)
    grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
    for rows, target, factor, grad_rows in _chunks(x, targets, scale, grad_x, _chunk(x, weight)):
        counts = target != IGNORE
        index = target.clamp(min=0).unsqueeze(1)
        capped = (rows @ head.T).float().div_(SOFTCAP).tanh_()  # the logits are SOFTCAP times this
        probs = (capped * SOFTCAP).exp_()  # at most e^15, so subtracting the maximum is unnecessary
        norm = probs.sum(dim=1)
        losses = norm.log() - SOFTCAP * capped.gather(1, index).squeeze(1)
        weights = counts * factor
        total += (losses * weights).sum()
        probs.mul_((weights / norm).unsqueeze(1))
        probs.scatter_add_(1, index, -weights.unsqueeze(1))
        grad = torch.ops.aten.tanh_backward(probs, capped).to(x.dtype)  # d(SOFTCAP * tanh(z / SOFTCAP)) / dz = 1 - tanh^2
        torch.mm(grad, head, out=grad_rows)
        if grad.dtype == grad_weight.dtype:
            grad_weight.addmm_(grad.T, rows)
        else:
            grad_weight += grad.T @ rows
    return total, grad_x, grad_weight


@torch.library.custom_op("nanochat::fused_head", mutates_args=())
def fused_head(x: Tensor, weight: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`plain_head` for bf16 x on CUDA: one kernel replaces a chunk's logits by their gradient and returns the losses."""
    head = weight.to(x.dtype)
    grad_x, grad_weight = torch.empty_like(x), None
    losses = []
    for rows, target, factor, grad_rows in _chunks(x, targets, scale, grad_x, max(1, FUSED_CHUNK_ELEMENTS // weight.size(0))):
        logits = rows @ head.T
        losses.append((kernels.cross_entropy.loss_and_grad_(logits, target, factor, SOFTCAP) * factor).sum())
        torch.mm(logits, head, out=grad_rows)
        if grad_weight is None:
            grad_weight = torch.mm(logits.T, rows, out_dtype=torch.float32)
        else:  # the product itself accumulates, in fp32 and in place; `torch.addmm` would copy grad_weight first
            torch.ops.aten.addmm.dtype_out(grad_weight, logits.T, rows, torch.float32, out=grad_weight)
    assert grad_weight is not None  # there is at least one row
    return torch.stack(losses).sum(), grad_x, grad_weight.to(weight.dtype)


@fused_head.register_fake
def _(x: Tensor, weight: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty((), dtype=torch.float32), torch.empty_like(x), torch.empty_like(weight)


def _chunks(x: Tensor, targets: Tensor, scale: Tensor, grad_x: Tensor, size: int) -> Iterator[tuple[Tensor, ...]]:
    parts = (x, targets, scale.expand(targets.shape), grad_x)
    return zip(*(torch.split(part, size) for part in parts), strict=True)


def _chunk(x: Tensor, weight: Tensor) -> int:
    return max(1, CHUNK_ELEMENTS.get(x.device.type, 1 << 24) // weight.size(0))
