"""The gradient of an embedding, added in place to the fp32 gradient that is there.

Autograd would clear a table, add the rows to it and add the table to the gradient: 24 bytes a weight, for tables of which a
micro-step touches a part. Rows of one token are added in no fixed order, as compiled autograd does; under
`torch.use_deterministic_algorithms` they are sorted first. On a CPU it is what autograd does, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("nanochat::add_embedding_grad", mutates_args=("grad",))
def add_embedding_grad(grad: Tensor, ids: Tensor, dy: Tensor) -> None:
    """grad (V, C) fp32, contiguous: row ids[n] += dy[n], for ids (N,) int64 and dy (N, C) of any float type."""
    if dy.is_cuda and not torch.are_deterministic_algorithms_enabled():
        from nanochat.kernels import embedding_grad_triton  # where there is no GPU there may be no Triton

        embedding_grad_triton.launch(grad, ids, dy)
    elif dy.is_cuda:
        grad.index_put_((ids,), dy.to(grad.dtype), accumulate=True)
    else:
        grad += torch.ops.aten.embedding_dense_backward(dy.to(grad.dtype), ids, grad.size(0), -1, False)


@add_embedding_grad.register_fake
def _(grad: Tensor, ids: Tensor, dy: Tensor) -> None:
    return None
