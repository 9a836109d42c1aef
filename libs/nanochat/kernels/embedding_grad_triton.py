"""The Triton kernel of `embedding_grad.py`. Import it only on CUDA or, in tests, under Triton's interpreter."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512  # channels per program: 8 bytes of bf16 per thread with 4 warps


@triton.jit
def _add_row(grad_ptr, ids_ptr, dy_ptr, C, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.load(ids_ptr + row)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < C
    dy = tl.load(dy_ptr + row * C + channel, mask=inside, other=0.0).to(tl.float32)
    tl.atomic_add(grad_ptr + place * C + channel, dy, mask=inside, sem="relaxed")


def launch(grad: Tensor, ids: Tensor, dy: Tensor) -> None:
    dy = dy.contiguous()
    rows, channels = dy.shape
    _add_row[(rows, triton.cdiv(channels, BLOCK))](grad, ids.contiguous(), dy, channels, BLOCK=BLOCK, num_warps=4)
