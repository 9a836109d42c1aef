"""Where the time of a micro-batch goes: by class of kernel, by kernel and by shape of matrix product."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch

# A kernel is of the first class whose pattern occurs in its name.
CLASSES = {
    "fp8 products": r"e4m3|e5m2|nvjet.*qqt|nvjet_sm90_q|f8",
    "MLP product + relu^2": r"^_up$|^_back$",
    "weight gradients": r"^_weight_grad$",
    "products": r"nvjet|gemm|cutlass|cublas|splitKreduce",
    "attention": r"cudnn|flash|fmha|attention",
    "quantize": r"quantize|amax",
    "rotary + norm": r"^_forward$|^_backward$",
    "cross entropy": r"loss_and_grad",
    "element-wise": r"triton|elementwise|reduce|vectorized|CatArray|index|copy",
}


def classify(kernel: str) -> str:
    return next((name for name, pattern in CLASSES.items() if re.search(pattern, kernel)), "other")


def profile(work: Callable[[], Any], times: int = 3) -> dict[str, Any]:
    """Milliseconds of one `work()`, on average over `times`: by class, for the 25 slowest kernels, and for each shape of matrix
    product together with its TFLOP/s."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    torch.cuda.synchronize()
    with torch_profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], record_shapes=True) as found:
        for _ in range(times):
            work()
        torch.cuda.synchronize()
    spent: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    for event in found.key_averages():
        ms = event.self_device_time_total / 1000 / times
        if ms > 0 and event.device_type == DeviceType.CUDA and not event.key.startswith("##"):  # ## marks a compiled graph
            spent[event.key] += ms
            launches[event.key] += event.count // times
    by_class: Counter[str] = Counter()
    for kernel, ms in spent.items():
        by_class[classify(kernel)] += ms
    top = [{"kernel": k[:110], "ms": round(ms, 2), "launches": launches[k]} for k, ms in spent.most_common(25)]
    shapes = found.key_averages(group_by_input_shape=True)
    return {"ms": {k: round(v, 2) for k, v in by_class.most_common()}, "top": top, "products": products(shapes, times)}


OPERANDS = {
    "aten::mm": 0,
    "aten::_scaled_mm": 0,
    "aten::addmm": 1,
    "aten::addmm_": 1,
}  # index of the first factor among the operands


def products(events: Iterable[Any], times: int) -> list[dict[str, Any]]:
    """For every shape M x K x N: operator, milliseconds of one `work()`, launches and TFLOP/s; the slowest first."""
    found = []
    for event in events:
        first = OPERANDS.get(event.key)
        if first is None or event.self_device_time_total <= 0:
            continue
        (m, k), (_, n) = event.input_shapes[first : first + 2]
        ms, launches = event.self_device_time_total / 1000 / times, event.count / times
        rate = 2 * m * k * n * launches / ms / 1e9
        shape = f"{event.key.removeprefix('aten::')} {m} x {k} x {n}"
        found.append({"product": shape, "ms": round(ms, 2), "launches": round(launches), "tflops": round(rate)})
    return sorted(found, key=lambda one: -one["ms"])
