"""`python -m benchmarks.train.job <json>`: one configuration in a process of its own; prints one line of JSON.

Under torchrun there is one process per GPU. The weights are realistic: with projections initialised to zero a GPU draws less
power, and so looks faster than it is in training.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.process import job_of_argv
from benchmarks.train.configuration import Configuration
from benchmarks.train.kernels import profile
from nanochat import distributed, kernels
from nanochat.config.recipe import resolve
from nanochat.distributed import Ranks
from nanochat.model import GPT, GPTConfig, accumulate, fp8, init_weights
from nanochat.model.compiled import compiled
from nanochat.model.loss import softcap
from nanochat.optim import Optimizer
from nanochat.optim.optimizer import Group
from nanochat.planning import gpus


def main() -> None:
    config = Configuration(**job_of_argv())
    torch.set_float32_matmul_precision("high")
    with distributed.ranks() as ranks, kernels.plain() if config.plain else contextlib.nullcontext():
        found = measure(config, ranks)
        if ranks.is_main:
            print(json.dumps(found), flush=True)


def measure(config: Configuration, ranks: Ranks) -> dict[str, Any]:
    torch.manual_seed(1 + ranks.rank)
    model = build(config, ranks)
    magnitudes = fp8.apply(model) if config.fp8 else None
    kind = MatrixByMatrix if config.plain else Optimizer
    optimizer = kind(model, resolve(config.recipe).base.optim, ranks, compiled=ranks.device.type == "cuda")
    copies = accumulate.apply(model, ranks.dtype, matmuls=not config.fp8) if kernels.found() and not config.plain else None
    forward = loss_of(config, model)
    if ranks.device.type == "cuda":
        forward = torch.compile(forward, dynamic=False) if config.plain else compiled(forward)
    accumulation = max(1, config.total_batch // (config.batch * config.seq_len * ranks.world_size))
    batches = [torch.randint(config.vocab, (config.batch, config.seq_len + 1), device=ranks.device) for _ in range(2)]

    def micro(index: int) -> Tensor:
        tokens = batches[index % 2]
        with ranks.autocast():
            loss: Tensor = forward(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        (loss / accumulation).backward()
        return loss.detach()

    def step() -> Tensor:
        losses = [micro(i) for i in range(accumulation)]
        optimizer.step(1.0, 0.95)
        optimizer.zero_grad()
        if magnitudes:
            magnitudes.roll()
        if copies:
            copies.refresh()
        return torch.stack(losses).mean()

    start = time.perf_counter()
    first = step().item()
    micro(0)
    if dead := [name for name, param in model.named_parameters() if not _alive(param.grad)]:
        raise RuntimeError(f"no gradient, or one that is zero or not finite, reaches {dead}")
    step().item()
    compile_s = time.perf_counter() - start
    run_for(step, config.warm_s, ranks)
    with Card(ranks) as card:
        steps, seconds = run_for(step, config.seconds, ranks)
    optimizer_ms = timed_ms(lambda: optimizer.step(1.0, 0.95), ranks)
    tokens = steps * accumulation * config.batch * config.seq_len * ranks.world_size
    speed = tokens / seconds
    gpu = gpus.find(torch.cuda.get_device_name()) if ranks.device.type == "cuda" else None
    last = step().item()
    if not math.isfinite(last):
        raise RuntimeError(f"the loss went from {first} to {last}")
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if ranks.device.type == "cuda" else "cpu",
        "world_size": ranks.world_size,
        "accumulation": accumulation,
        "tok_per_s": speed,
        "mfu": 100 * speed * model.flops_per_token() / (gpu.peak_flops * ranks.world_size) if gpu else None,
        "step_ms": 1000 * seconds / steps,
        "steps": steps,
        "optimizer_ms": optimizer_ms,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if ranks.device.type == "cuda" else None,
        "compile_s": compile_s,
        "first_loss": first,
        "last_loss": last,
        **card.figures(),
    }
    if config.profile:
        if ranks.is_main:
            print(json.dumps(found), flush=True)  # so that a profile that takes too long loses nothing measured
        found["profile"] = profile(lambda: micro(0))
    return found


class MatrixByMatrix(Optimizer):
    """nanochat's update of the matrices: compiled like ours, but each matrix is orthogonalized by itself."""

    def _update_muon(self, group: Group, *scalars: Any) -> None:
        assert group.matrix
        size = group.matrix[0] * group.matrix[1]
        parts = zip(
            *(t.split(size) for t in (group.bucket.own_weights, group.bucket.own_grads, group.state["momentum"])), strict=True
        )
        for weights, grads, momentum in parts:
            one = SimpleNamespace(own_weights=weights, own_grads=grads)
            super()._update_muon(replace(group, bucket=one, state={"momentum": momentum}), *scalars)


def _alive(grad: Tensor | None) -> bool:
    """Whether there is a gradient that is finite and not zero everywhere."""
    return grad is not None and bool(grad.isfinite().all()) and bool(grad.any())


def build(config: Configuration, ranks: Ranks) -> GPT:
    spec = resolve(config.recipe).model.model_copy(update={"depth": config.depth, "seq_len": config.seq_len})
    with ranks.device:
        model = GPT(GPTConfig.of(spec, config.vocab))
    init_weights(model)
    with torch.no_grad():
        for param in model.parameters():
            if not param.any():
                param.normal_(std=0.5 * (param.size(-1) if param.ndim else 1) ** -0.5)
    return model


def loss_of(config: Configuration, model: GPT) -> Any:
    if not config.plain:
        return model

    def plain(ids: Tensor, targets: Tensor) -> Tensor:
        logits = softcap(model.lm_head(model.hidden(ids)))
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten())

    return plain


def run_for(step: Any, seconds: float, ranks: Ranks) -> tuple[int, float]:
    """Run whole steps for at least `seconds` on every rank. Returns how many there were and how long they took."""
    wait(ranks)
    start, steps = time.perf_counter(), 0
    while True:
        step()
        wait(ranks)
        steps += 1
        gone = time.perf_counter() - start
        if ranks.any(gone >= seconds):
            return steps, gone


def timed_ms(call: Any, ranks: Ranks, times: int = 5) -> float:
    wait(ranks)
    start = time.perf_counter()
    for _ in range(times):
        call()
    wait(ranks)
    return 1000 * (time.perf_counter() - start) / times


def wait(ranks: Ranks) -> None:
    if ranks.device.type == "cuda":
        torch.cuda.synchronize()


class Card:
    """Clock, power and temperature of the GPU while the block runs, read with nvidia-smi twice a second."""

    FIELDS = ("clocks.sm", "power.draw", "temperature.gpu")

    def __init__(self, ranks: Ranks):
        self._on = ranks.device.type == "cuda" and ranks.is_main
        self._readings: list[list[float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Card:
        if self._on:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._on:
            self._thread.join()

    def _watch(self) -> None:
        card = f"GPU-{torch.cuda.get_device_properties().uuid}"  # nvidia-smi ignores CUDA_VISIBLE_DEVICES
        command = ["nvidia-smi", f"--query-gpu={','.join(self.FIELDS)}", "--format=csv,noheader,nounits", "-i", card]
        while not self._done.wait(0.5):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            with contextlib.suppress(ValueError):
                self._readings.append([float(part) for part in done.stdout.split(",")])

    def figures(self) -> dict[str, float]:
        names = ("sm_mhz", "watts", "celsius")
        count = len(self._readings)
        return {n: sum(r[i] for r in self._readings) / count for i, n in enumerate(names)} if count else {}


if __name__ == "__main__":
    main()
