"""`python -m benchmarks.saving.job <json>`: saves of one model in a process of its own; prints one line of JSON."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.process import job_of_argv
from nanochat.config.recipe import ModelSpec, OptimSpec
from nanochat.config.shape import GPTConfig
from nanochat.contract.events import EventLog
from nanochat.distributed import Ranks, autodetect, native_dtype
from nanochat.model import GPT, init_weights
from nanochat.optim import Optimizer
from nanochat.train.saver import Phase, Saver

VOCAB = 65_536


def main() -> None:
    print(json.dumps(measure(job_of_argv())))


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each save beside the training, of each that is waited for and, on a GPU, of steps without and with a save.

    A CPU takes longer for one step than for the whole write, so steps are not measured there.
    """
    device = torch.device(autodetect())
    cuda = device.type == "cuda"
    ranks = Ranks(0, 1, device, native_dtype(device))
    with device:
        model = GPT(GPTConfig.of(ModelSpec(depth=job["depth"], seq_len=job["tokens"]), VOCAB))
    init_weights(model)
    optimizer = Optimizer(model, OptimSpec(), ranks)
    shape, saves = (job["rows"], job["tokens"] + 1), job["saves"]
    stalls: list[float] = []
    waits: list[float] = []
    alone: list[float] = []
    busy: list[float] = []
    with tempfile.TemporaryDirectory(dir=job["folder"]) as folder:
        saver = Saver(
            Path(folder),
            stage="bench",
            model=model,
            optimizer=optimizer,
            ranks=ranks,
            events=EventLog(None),
            keep=1,
            ahead=True,
        )
        if cuda:
            alone = list(steps(model, optimizer, ranks, shape, lambda done: done < 6))[1:]
        for number in range(1, saves + 1):
            stalls.append(save(saver, number))
            if cuda:
                busy += steps(model, optimizer, ranks, shape, lambda done: saver.phase is Phase.WRITING or not done)
            saver.finish()
        for number in range(saves + 1, 2 * saves + 1):
            start = time.perf_counter()
            save(saver, number)
            saver.finish()
            waits.append(time.perf_counter() - start)
        size = sum(p.stat().st_size for p in (Path(folder) / f"step_{number:06d}").iterdir()) / 2**30
        saver.close()
    return {"gib": size, "stalls_s": stalls, "waits_s": waits, "steps_s": alone, "steps_while_writing_s": busy}


def save(saver: Saver, number: int) -> float:
    """Seconds for which the training stands still."""
    start = time.perf_counter()
    saver.save(number, meta={}, score=None, loop_state={}, loader_state={})
    return time.perf_counter() - start


def steps(
    model: GPT, optimizer: Optimizer, ranks: Ranks, shape: tuple[int, int], more: Callable[[int], bool]
) -> Iterator[float]:
    """Seconds of each training step, while `more(steps done)` holds."""
    done = 0
    while more(done):
        start = time.perf_counter()
        ids = torch.randint(0, VOCAB, shape, device=ranks.device)
        with ranks.autocast():
            loss = model(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step(1.0, 0.9).item()
        optimizer.zero_grad()
        yield time.perf_counter() - start
        done += 1


if __name__ == "__main__":
    main()
