"""The gradient of an embedding, added in place to an existing fp32 gradient.

Autograd would zero a whole table, add the rows to it and add that table to the gradient: 24 bytes of traffic per weight,
although a micro-step touches only part of the table. Gradients of the same token are added in no fixed order, as compiled
autograd does; under `torch.use_deterministic_algorithms` they are sorted first. On a CPU the result equals autograd's bit
for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("nanochat::add_embedding_grad", mutates_args=("grad",))
def add_embedding_grad(grad: Tensor, ids: Tensor, dy: Tensor) -> None:
    """For each n: grad[ids[n]] += dy[n]. grad (V, C) fp32, contiguous; ids (N,) int64; dy (N, C), any float type."""
    if dy.is_cuda and not torch.are_deterministic_algorithms_enabled():
        from nanochat.kernels import embedding_grad_triton  # here, because without a GPU Triton may not be installed

        embedding_grad_triton.launch(grad, ids, dy)
    elif dy.is_cuda:
        grad.index_put_((ids,), dy.to(grad.dtype), accumulate=True)
    else:
        grad += torch.ops.aten.embedding_dense_backward(dy.to(grad.dtype), ids, grad.size(0), -1, False)


@add_embedding_grad.register_fake
def _(grad: Tensor, ids: Tensor, dy: Tensor) -> None:
    return None
