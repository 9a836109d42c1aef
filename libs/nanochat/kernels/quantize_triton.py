"""The Triton kernels of `quantize.py`. Import it only on CUDA or, in tests, under Triton's interpreter.

A program handles one tile of 128 tokens by 64 features. It reads the tile once, 16 bytes per thread, and writes it twice: as it
lies, and transposed. Both accesses fill whole 128-byte cache lines: 64 bf16 per read, 128 one-byte tokens per transposed write.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from nanochat.kernels.fp8_format import Format

ROWS, COLUMNS, WARPS = 128, 64, 8
FIRST_BLOCK, FIRST_PROGRAMS = 4096, 528  # of the amax pass: four programs for each of an H100's 132 multiprocessors

PLAIN: tl.constexpr = tl.constexpr(0)  # quantize x
RELU2: tl.constexpr = tl.constexpr(1)  # quantize relu(x)^2
RELU2_GRAD: tl.constexpr = tl.constexpr(2)  # quantize 2 x relu(h): x is the gradient of relu(h)^2, the result that of h
KINDS = {"plain": 0, "relu2": 1, "relu2_grad": 2}
SMALLEST: tl.constexpr = tl.constexpr(2.0**-100)
INF: tl.constexpr = tl.constexpr(float("inf"))
FOUR = "{{ .reg .b16 a, b; cvt.rn.satfinite.{0}x2.f32 a, $2, $1; cvt.rn.satfinite.{0}x2.f32 b, $4, $3; mov.b32 $0, {{a, b}}; }}"
E4M3X4: tl.constexpr = tl.constexpr(FOUR.format("e4m3"))
E5M2X4: tl.constexpr = tl.constexpr(FOUR.format("e5m2"))


@triton.jit
def _relu(h):
    return tl.where(h <= 0.0, 0.0, h)  # where, not maximum: keeps NaN


@triton.jit
def _value(x, h, KIND: tl.constexpr):
    if KIND == RELU2:
        return _relu(x) * _relu(x)
    if KIND == RELU2_GRAD:
        return 2.0 * x * _relu(h)
    return x


@triton.jit
def _load(x_ptr, h_ptr, at, mask, KIND: tl.constexpr):
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    if KIND == RELU2_GRAD:
        return x, tl.load(h_ptr + at, mask=mask, other=0.0).to(tl.float32)
    return x, x


@triton.jit
def _magnitude(value):
    size = tl.abs(value)
    return tl.where(size < INF, size, INF)  # NaN counts as infinite


@triton.jit
def _scale(seen, EXPONENT: tl.constexpr):
    """The power of two that scales `seen` into [2^EXPONENT, 2^(EXPONENT + 1)), and its inverse; see quantize.scales."""
    exponent = tl.maximum(seen, SMALLEST).to(tl.int32, bitcast=True) >> 23
    scale = ((254 + EXPONENT - exponent) << 23).to(tl.float32, bitcast=True)
    inverse = ((exponent - EXPONENT) << 23).to(tl.float32, bitcast=True)
    return scale, tl.where(seen < INF, inverse, float("nan"))


@triton.jit
def _cast(value, scale, DTYPE: tl.constexpr, LIMIT: tl.constexpr, MAGIC: tl.constexpr, TINY: tl.constexpr, ROUND: tl.constexpr):
    y = value * scale
    y += y * (value - value)  # makes y NaN where the value is not finite
    if ROUND:  # fp32 addition rounds to nearest even; the interpreter's own cast truncates
        y = tl.minimum(tl.maximum(y, -LIMIT), LIMIT)
        power = (tl.maximum(tl.abs(y), TINY).to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
        magic = power * MAGIC
        return ((y + magic) - magic).to(DTYPE)
    # Convert four values into one register. Triton's own cast converts pairs and then joins them, and ptxas 12.8 once
    # miscompiled the joining: six of every sixteen features were wrong in the transposed tile.
    if tl.float8e5 == DTYPE:
        bits = tl.inline_asm_elementwise(E5M2X4, "=r,f,f,f,f", [y], dtype=tl.int8, is_pure=True, pack=4)
    else:
        bits = tl.inline_asm_elementwise(E4M3X4, "=r,f,f,f,f", [y], dtype=tl.int8, is_pure=True, pack=4)
    return bits.to(DTYPE, bitcast=True)


@triton.jit(do_not_specialize=["row", "now_row"])
def first_amax_kernel(
    x_ptr, h_ptr, before_ptr, row, now_ptr, now_row, numel, TURNS: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr
):
    if tl.load(before_ptr + row) <= 0.0:
        amax = tl.zeros((BLOCK,), tl.float32)
        for turn in range(TURNS):
            block = (turn * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
            at = block * BLOCK + tl.arange(0, BLOCK)
            x, h = _load(x_ptr, h_ptr, at, at < numel, KIND)
            amax = tl.maximum(amax, _magnitude(_value(x, h, KIND)))
        tl.atomic_max(now_ptr + now_row, tl.max(amax), sem="relaxed")


@triton.jit(do_not_specialize=["row", "now_row"])
def quantize_kernel(
    x_ptr,
    h_ptr,
    x8_ptr,
    x8t_ptr,
    inverse_ptr,
    before_ptr,
    row,
    now_ptr,
    now_row,
    act8t_ptr,
    act_inverse_ptr,
    M,
    N,
    KIND: tl.constexpr,
    TRANSPOSE: tl.constexpr,
    EXPONENT: tl.constexpr,
    LIMIT: tl.constexpr,
    MAGIC: tl.constexpr,
    TINY: tl.constexpr,
    ACT_LIMIT: tl.constexpr,
    ACT_MAGIC: tl.constexpr,
    ACT_TINY: tl.constexpr,
    ROUND: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """x (M, N) to x8 (M, N) and, if TRANSPOSE, to x8t (N, M). For RELU2_GRAD also relu(h)^2, transposed, to act8t (N, M)."""
    rows = (tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    columns = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    inside = (rows < M)[:, None] & (columns < N)[None, :]
    at = rows[:, None] * N + columns[None, :]
    at_t = columns[:, None] * M + rows[None, :]
    inside_t = (columns < N)[:, None] & (rows < M)[None, :]

    before, now = tl.load(before_ptr + row), tl.load(now_ptr + now_row)
    scale, inverse = _scale(tl.where(before > 0.0, before, now), EXPONENT)
    x, h = _load(x_ptr, h_ptr, at, inside, KIND)
    value = _value(x, h, KIND)
    x8 = _cast(value, scale, x8_ptr.dtype.element_ty, LIMIT, MAGIC, TINY, ROUND)
    tl.store(x8_ptr + at, x8, mask=inside)
    if TRANSPOSE:
        tl.store(x8t_ptr + at_t, tl.trans(x8), mask=inside_t)
    if KIND == RELU2_GRAD:
        act_inverse = tl.load(act_inverse_ptr)
        act_scale = ((254 << 23) - act_inverse.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
        act = _value(h, h, RELU2) + (act_inverse - act_inverse)  # makes everything NaN if the scale is not finite
        act8 = _cast(act, act_scale, act8t_ptr.dtype.element_ty, ACT_LIMIT, ACT_MAGIC, ACT_TINY, ROUND)
        tl.store(act8t_ptr + at_t, tl.trans(act8), mask=inside_t)

    amax = tl.max(_magnitude(value))
    # `now` only grows, so most programs find a value that is large enough and skip the atomic.
    tl.atomic_max(now_ptr + now_row, amax, mask=amax > now, sem="relaxed")
    if (tl.program_id(0) == 0) & (tl.program_id(1) == 0):
        tl.store(inverse_ptr, inverse)


def launch(
    kind: str,
    x: Tensor,
    h: Tensor,
    x8: Tensor,
    x8t: Tensor,
    inverse: Tensor,
    before: Tensor,
    row: int,
    now: Tensor,
    now_row: int,
    act8t: Tensor,
    act_inverse: Tensor,
    fmt: Format,
    act: Format,
) -> None:
    """Run the amax pass, which returns at once if `before` has a magnitude, and then the cast.

    All tensors are contiguous and on one device. `fmt` is the format of x8, `act` that of act8t.
    """
    which = KINDS[kind]
    rows, columns = x.shape
    blocks = triton.cdiv(x.numel(), FIRST_BLOCK)
    programs = min(FIRST_PROGRAMS, blocks)
    turns = triton.cdiv(blocks, programs)
    first_amax_kernel[(programs,)](x, h, before, row, now, now_row, x.numel(), TURNS=turns, KIND=which, BLOCK=FIRST_BLOCK)
    quantize_kernel[(triton.cdiv(columns, COLUMNS), triton.cdiv(rows, ROWS))](
        x,
        h,
        x8,
        x8t,
        inverse,
        before,
        row,
        now,
        now_row,
        act8t,
        act_inverse,
        rows,
        columns,
        KIND=which,
        TRANSPOSE=kind != "relu2",
        EXPONENT=fmt.exponent,
        LIMIT=fmt.limit,
        MAGIC=fmt.magic,
        TINY=fmt.tiny,
        ACT_LIMIT=act.limit,
        ACT_MAGIC=act.magic,
        ACT_TINY=act.tiny,
        ROUND=triton.knobs.runtime.interpret,
        BLOCK_M=ROWS,
        BLOCK_N=COLUMNS,
        num_warps=WARPS,
    )
