"""One configuration, measured in a process of its own (or in one a GPU, under torchrun): prints one line of JSON.

The model gets realistic weights: zero-initialised projections draw less power and look faster than training is.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.train import kernels as classes
from nanochat import kernels
from nanochat.config.recipe import resolve
from nanochat.distributed import Ranks, ranks
from nanochat.model import GPT, GPTConfig, accumulate, fp8, init_weights
from nanochat.model.compiled import compiled
from nanochat.model.loss import softcap
from nanochat.optim import Optimizer
from nanochat.optim.optimizer import Group
from nanochat.planning import gpus


@dataclass(frozen=True)
class Job:
    name: str
    recipe: str = "speedrun"  # its model's switches and its optimizer; sizes are those below
    depth: int = 20
    vocab: int = 65_536
    seq_len: int = 2048
    batch: int = 32
    total_batch: int = 524_288
    plain: bool = False  # compiled as the reference is: no kernel of ours, all logits at once, a matrix at a time in Muon
    fp8: bool = False
    seconds: float = 20.0  # measured, after `warm_s` of the same work: a cold card is faster than a warm one
    warm_s: float = 10.0
    profile: bool = False


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    torch.set_float32_matmul_precision("high")
    with ranks() as here, kernels.plain() if job.plain else contextlib.nullcontext():
        found = measure(job, here)
        if here.is_main:
            print(json.dumps(found), flush=True)


def measure(job: Job, here: Ranks) -> dict[str, Any]:
    torch.manual_seed(1 + here.rank)
    model = build(job, here)
    magnitudes = fp8.apply(model) if job.fp8 else None
    kind = MatrixByMatrix if job.plain else Optimizer
    optimizer = kind(model, resolve(job.recipe).base.optim, here, compiled=here.device.type == "cuda")
    copies = accumulate.apply(model, here.dtype, products=not job.fp8) if kernels.found() and not job.plain else None
    forward = loss_of(job, model)
    if here.device.type == "cuda":
        forward = torch.compile(forward, dynamic=False) if job.plain else compiled(forward)
    accumulation = max(1, job.total_batch // (job.batch * job.seq_len * here.world_size))
    batches = [torch.randint(job.vocab, (job.batch, job.seq_len + 1), device=here.device) for _ in range(2)]

    def micro(index: int) -> Tensor:
        tokens = batches[index % 2]
        with here.autocast():
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
        raise RuntimeError(f"no gradient, or none that is a number, reaches {dead}")
    step().item()
    compile_s = time.perf_counter() - start
    run_for(step, job.warm_s, here)
    with Card(here) as card:
        steps, seconds = run_for(step, job.seconds, here)
    optimizer_ms = timed_ms(lambda: optimizer.step(1.0, 0.95), here)
    tokens = steps * accumulation * job.batch * job.seq_len * here.world_size
    speed = tokens / seconds
    gpu = gpus.find(torch.cuda.get_device_name()) if here.device.type == "cuda" else None
    last = step().item()
    if not math.isfinite(last):
        raise RuntimeError(f"the loss went from {first} to {last}")
    found = {
        "name": job.name,
        "device": torch.cuda.get_device_name() if here.device.type == "cuda" else "cpu",
        "world_size": here.world_size,
        "accumulation": accumulation,
        "tok_per_s": speed,
        "mfu": 100 * speed * model.flops_per_token() / (gpu.peak_flops * here.world_size) if gpu else None,
        "step_ms": 1000 * seconds / steps,
        "steps": steps,
        "optimizer_ms": optimizer_ms,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if here.device.type == "cuda" else None,
        "compile_s": compile_s,
        "first_loss": first,
        "last_loss": last,
        **card.figures(),
    }
    if job.profile:
        if here.is_main:
            print(json.dumps(found), flush=True)  # what is measured is not lost if the profile takes too long
        found["profile"] = classes.profile(lambda: micro(0))
    return found


class MatrixByMatrix(Optimizer):
    """The update of the reference: compiled as well, but each matrix has its own orthogonalization."""

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
    """Whether there is a gradient, of numbers that are not all 0."""
    return grad is not None and bool(grad.isfinite().all()) and bool(grad.any())


def build(job: Job, here: Ranks) -> GPT:
    spec = resolve(job.recipe).model.model_copy(update={"depth": job.depth, "seq_len": job.seq_len})
    with here.device:
        model = GPT(GPTConfig.of(spec, job.vocab))
    init_weights(model)
    with torch.no_grad():
        for param in model.parameters():
            if not param.any():
                param.normal_(std=0.5 * (param.size(-1) if param.ndim else 1) ** -0.5)
    return model


def loss_of(job: Job, model: GPT) -> Any:
    if not job.plain:
        return model

    def plain(ids: Tensor, targets: Tensor) -> Tensor:
        logits = softcap(model.lm_head(model.hidden(ids)))
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten())

    return plain


def run_for(step: Any, seconds: float, here: Ranks) -> tuple[int, float]:
    """Whole steps for at least `seconds` on every rank; how many, and how long they took."""
    wait(here)
    start, steps = time.perf_counter(), 0
    while True:
        step()
        wait(here)
        steps += 1
        gone = time.perf_counter() - start
        if here.any(gone >= seconds):
            return steps, gone


def timed_ms(call: Any, here: Ranks, times: int = 5) -> float:
    wait(here)
    start = time.perf_counter()
    for _ in range(times):
        call()
    wait(here)
    return 1000 * (time.perf_counter() - start) / times


def wait(here: Ranks) -> None:
    if here.device.type == "cuda":
        torch.cuda.synchronize()


class Card:
    """Clock, power and temperature while the block runs, as nvidia-smi reads them twice a second; only looks."""

    FIELDS = ("clocks.sm", "power.draw", "temperature.gpu")

    def __init__(self, here: Ranks):
        self._on = here.device.type == "cuda" and here.is_main
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
        card = f"GPU-{torch.cuda.get_device_properties().uuid}"  # nvidia-smi does not know of CUDA_VISIBLE_DEVICES
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
