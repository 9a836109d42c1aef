"""What saving a checkpoint costs the training: the stall and, on a GPU, how fast steps are while the thread writes.

`QUICK=1`: a small model. `DEPTH`: 20 on CUDA, 12 elsewhere. `RECORD=1`: also writes benchmarks/results/saving-<device>.json.
The peer is our own save when training waits until it is written.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as a stage does, before torch is loaded
import torch

from benchmarks.result import cpu, finish, row, slug
from nanochat.config.recipe import ModelSpec, OptimSpec
from nanochat.config.shape import GPTConfig
from nanochat.contract.events import EventLog
from nanochat.distributed import Ranks, autodetect, native_dtype
from nanochat.model import GPT, init_weights
from nanochat.optim import Optimizer
from nanochat.train.saver import Phase, Saver

DEVICE = torch.device(autodetect())
CUDA = DEVICE.type == "cuda"
QUICK = os.environ.get("QUICK") == "1"
DEPTH = int(os.environ.get("DEPTH", "4" if QUICK else "20" if CUDA else "12"))
SAVES = 3
ROWS, TOKENS = 8, 2048  # of a step; on a CPU one would take longer than the write


def main() -> None:
    ranks = Ranks(0, 1, DEVICE, native_dtype(DEVICE))
    with DEVICE:
        model = GPT(GPTConfig.of(ModelSpec(depth=DEPTH, seq_len=TOKENS), 65_536))
    init_weights(model)
    optimizer = Optimizer(model, OptimSpec(), ranks)
    with tempfile.TemporaryDirectory(dir=os.environ.get("DIR")) as folder:
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
        idle = list(steps(model, optimizer, ranks, lambda done: done < 6))[1:] if CUDA else []
        stalls, during, wholes = [], [], []
        for number in range(1, SAVES + 1):
            start = time.perf_counter()
            saver.save(number, meta={}, score=None, loop_state={}, loader_state={})
            stalls.append(time.perf_counter() - start)
            if CUDA:
                during += steps(model, optimizer, ranks, lambda done: saver.phase is Phase.WRITING or not done)
            saver.finish()
        for number in range(SAVES + 1, 2 * SAVES + 1):
            start = time.perf_counter()
            saver.save(number, meta={}, score=None, loop_state={}, loader_state={})
            saver.finish()
            wholes.append(time.perf_counter() - start)
        size = sum(p.stat().st_size for p in (Path(folder) / f"step_{number:06d}").iterdir()) / 2**30
        saver.close()
    stall, whole = max(stalls), statistics.median(wholes)
    device = slug(torch.cuda.get_device_name()) if CUDA else cpu()
    name = f"d{DEPTH}, {size:.2f} GiB"
    print(f"{name} on {device}: training stalls {stall:.3f} s (first {stalls[0]:.3f}), when it waits {whole:.2f} s")
    rows = [
        row(f"stall of a save, {name}", stall, "s", "lower", must=1.0),
        row(f"save, {name}", stall, "s", "lower", "waiting until it is written", whole),
    ]
    if CUDA:
        alone, busy = (1000 * statistics.median(seconds) for seconds in (idle, during))
        print(f"a step of {ROWS} x {TOKENS}: {alone:.0f} ms, while the thread writes {busy:.0f} ms")
        rows.append(row("step while a checkpoint is written", busy, "ms", "lower", "step", alone))
    finish("saving", device, rows)


def steps(model: GPT, optimizer: Optimizer, ranks: Ranks, more: Callable[[int], bool]) -> Iterator[float]:
    """Seconds of each training step, as long as `more` of so many done."""
    done = 0
    while more(done):
        start = time.perf_counter()
        ids = torch.randint(0, 65_536, (ROWS, TOKENS + 1), device=DEVICE)
        with ranks.autocast():
            loss = model(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step(1.0, 0.9).item()
        optimizer.zero_grad()
        yield time.perf_counter() - start
        done += 1


if __name__ == "__main__":
    main()
