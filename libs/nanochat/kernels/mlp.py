"""The MLP's first matrix product with relu^2 as its epilogue, and the backward pass through both.

Unfused, relu^2 reads and writes (tokens, 4C) once in the forward and once in the backward pass: at d20 with 65,536 tokens
that takes 0.45 and 0.7 ms per layer. As an epilogue, it squares the values while they are still in registers. The backward
pass needs no input of relu^2, because its derivative is twice the square root of its output (`layers.relu_squared`).

Both products are persistent kernels: each program loops over output tiles, and tensor descriptors (TMA) load the operands. The
design is that of Triton's tutorial on persistent matrix products; the epilogue is ours.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nanochat.kernels.launch import descriptor, launched, programs
from nanochat.kernels.weight_grad import add_weight_grad

BLOCK_M, BLOCK_N, BLOCK_K = 128, 256, 64
# num_stages: depth of the load pipeline. GROUP: tiles along M that share a range of N, so that both operands stay in L2.
# Milliseconds on an H100 at 65,536 x 1280 x 5120:
#   UP    1.15 (cuBLAS 1.15, plus 0.45 for relu^2); 1.24 with GROUP 8 or 16
#   BACK  1.49 (cuBLAS 1.26, plus 0.66 for relu^2); 1.53 with GROUP 32
# Blocks of 128 x 128 and 256 x 128 were slower (1.31 to 1.84). BACK has no shared memory for a fourth stage: its epilogue holds
# a tile of relu^2's output.
UP = {"num_stages": 3, "GROUP": 32}
BACK = {"num_stages": 3, "GROUP": 16}


@triton.jit
def _tile(index, tiles_m, tiles_n, GROUP: tl.constexpr):
    per_group = GROUP * tiles_n
    first = (index // per_group) * GROUP
    size = tl.minimum(tiles_m - first, GROUP)
    return first + (index % per_group) % size, (index % per_group) // size


@triton.jit
def _up(x_desc, w_desc, out_desc, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PROGRAMS: tl.constexpr):  # fmt: skip
    """out (M, N) = relu(x (M, K) @ w (N, K)^T)^2."""
    tiles_m, tiles_n = tl.cdiv(M, BM), tl.cdiv(N, BN)
    for index in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=True):
        tile_m, tile_n = _tile(index, tiles_m, tiles_n, GROUP)
        acc = tl.zeros((BM, BN), tl.float32)
        for k in range(0, K, BK):
            x = x_desc.load([tile_m * BM, k])
            w = w_desc.load([tile_n * BN, k])
            acc = tl.dot(x, w.T, acc)
        left, right = tl.split(tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1)))
        left, right = tl.maximum(left, 0.0), tl.maximum(right, 0.0)
        out_desc.store([tile_m * BM, tile_n * BN], (left * left).to(out_desc.dtype))
        out_desc.store([tile_m * BM, tile_n * BN + BN // 2], (right * right).to(out_desc.dtype))


@triton.jit
def _back(dy_desc, w_desc, a_desc, out_desc, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PROGRAMS: tl.constexpr):  # fmt: skip
    """out (M, N) = (dy (M, K) @ w (K, N)) * 2 sqrt(a (M, N))."""
    tiles_m, tiles_n = tl.cdiv(M, BM), tl.cdiv(N, BN)
    for index in tl.range(tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=True):
        tile_m, tile_n = _tile(index, tiles_m, tiles_n, GROUP)
        acc = tl.zeros((BM, BN), tl.float32)
        for k in range(0, K, BK):
            dy = dy_desc.load([tile_m * BM, k])
            w = w_desc.load([k, tile_n * BN])
            acc = tl.dot(dy, w, acc)
        left, right = tl.split(tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1)))
        a = a_desc.load([tile_m * BM, tile_n * BN]).to(tl.float32)
        out_desc.store([tile_m * BM, tile_n * BN], (left * 2.0 * tl.sqrt(a)).to(out_desc.dtype))
        a = a_desc.load([tile_m * BM, tile_n * BN + BN // 2]).to(tl.float32)
        out_desc.store([tile_m * BM, tile_n * BN + BN // 2], (right * 2.0 * tl.sqrt(a)).to(out_desc.dtype))


@torch.library.custom_op("nanochat::up_relu_squared", mutates_args=())
def up_relu_squared(x: Tensor, w: Tensor) -> Tensor:
    """relu(x w^T)^2, (M, N). x (M, K) and w (N, K) are bf16; N and K are multiples of 64."""
    (rows, inner), columns = x.shape, w.size(0)
    out = x.new_empty(rows, columns)
    half = [BLOCK_M, BLOCK_N // 2]
    descs = (descriptor(x, [BLOCK_M, BLOCK_K]), descriptor(w, [BLOCK_N, BLOCK_K]), descriptor(out, half))
    launched(_up, programs(x))(*descs, rows, columns, inner, **_sizes(x), **UP, num_warps=8)
    return out


@up_relu_squared.register_fake
def _(x: Tensor, w: Tensor) -> Tensor:
    return x.new_empty(x.size(0), w.size(0))


@torch.library.custom_op("nanochat::down_relu_squared_backward", mutates_args=())
def down_relu_squared_backward(dy: Tensor, w: Tensor, a: Tensor) -> Tensor:
    """The gradient (M, N) of relu^2's input: (dy w) * 2 sqrt(a).

    dy (M, K) is the gradient of the MLP's output, w (K, N) the weight of `down`, a (M, N) relu^2's output; all bf16.
    """
    (rows, inner), columns = dy.shape, w.size(1)
    out, half = torch.empty_like(a), [BLOCK_M, BLOCK_N // 2]
    descs = (descriptor(dy, [BLOCK_M, BLOCK_K]), descriptor(w, [BLOCK_K, BLOCK_N]), descriptor(a, half), descriptor(out, half))
    _back[programs(dy)](*descs, rows, columns, inner, **_sizes(dy), **BACK, num_warps=8)
    return out


@down_relu_squared_backward.register_fake
def _(dy: Tensor, w: Tensor, a: Tensor) -> Tensor:
    return torch.empty_like(a)


class FusedMLP(torch.autograd.Function):
    """down(relu(up(x))^2). x (M, C) is bf16; the weights `up` (H, C) and `down` (C, H) have any float type.

    Without `grads` autograd receives the weights' gradients, in the weights' type. With `grads`, the two fp32 gradients of
    `up` and `down`, they are added to those in place and autograd receives none.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor, *grads: Tensor) -> Tensor:
        up_narrow, down_narrow = (w if w.dtype == x.dtype else w.to(x.dtype) for w in (up, down))  # why `if`: see model/fp8.py
        a = up_relu_squared(x, up_narrow)
        ctx.save_for_backward(x, up_narrow, down_narrow, a, *grads)
        ctx.weight_dtype = up.dtype
        return a @ down_narrow.T

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, up, down, a, *grads = ctx.saved_tensors
        dy = upstream[0].contiguous()
        dh = down_relu_squared_backward(dy, down, a)
        if grads:
            add_weight_grad(grads[0], dh, x)
            add_weight_grad(grads[1], dy, a)
            return dh @ up, None, None, None, None
        return dh @ up, (dh.T @ x).to(ctx.weight_dtype), (dy.T @ a).to(ctx.weight_dtype)


def _sizes(x: Tensor) -> dict[str, int]:
    return {"BM": BLOCK_M, "BN": BLOCK_N, "BK": BLOCK_K, "PROGRAMS": programs(x)[0]}
