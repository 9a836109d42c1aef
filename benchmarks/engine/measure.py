"""What is measured in one process. Every function drives an engine as the server does: `add`, then `step` until it is idle."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.engine.subject import Prompts
from nanochat.engine import Engine, Request, Sampling
from nanochat.model import GPT

SAMPLED = Sampling(temperature=1.0, top_k=50)
GREEDY = Sampling(temperature=0.0)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Decoded:
    """`tok_per_s` while every stream decodes; `with_prompts` over everything from the first `add` to the last token."""

    tok_per_s: float
    with_prompts: float
    step_ms: float
    context: float  # mean positions of a row while every stream decodes


def decode(engine: Engine, prompts: Prompts, streams: int, prompt: int, new: int) -> Decoded:
    """Streams of different prompts, all added at once."""
    for tokens in prompts(streams, prompt):
        engine.add(tokens, SAMPLED, max_tokens=new)
    synchronize()
    start = time.perf_counter()
    started: set[Request] = set()
    made = between = 0
    begun = ended = last = at_begin = at_end = 0.0
    while engine.busy:
        outputs = engine.step()
        now = time.perf_counter()
        moved = [output.row.request for output in outputs if output.token is not None]
        made += len(moved)
        if begun and not ended:
            if len(moved) == streams:
                between, at_end, last = between + streams, made / streams, now
            else:
                ended = last
        started.update(moved)
        if not begun and len(started) == streams:
            begun = last = now
            at_begin = made / streams
    synchronize()
    whole = time.perf_counter() - start
    ended = ended or last
    if not between:
        raise RuntimeError(
            f"the first of {streams} streams ended before the last had begun; it needs more than {new} new tokens"
        )
    if made != streams * new:
        raise RuntimeError(f"{streams} streams made {made} tokens, not {new} each")
    speed = between / (ended - begun)
    return Decoded(speed, made / whole, 1000 * streams / speed, prompt + (at_begin + at_end) / 2)


def first_token(engine: Engine, prompts: Prompts, prompt: int, times: int) -> list[float]:
    """Seconds from `add` to the first token while the engine is idle."""
    found = []
    for tokens in prompts(times, prompt):
        synchronize()
        start = time.perf_counter()
        request = engine.add(tokens, SAMPLED, max_tokens=2)
        while not any(output.token is not None for output in engine.step()):
            pass
        found.append(time.perf_counter() - start)
        engine.cancel(request)
        drain(engine)
    return found


def prefill(engine: Engine, prompts: Prompts, count: int, prompt: int, times: int) -> float:
    """Median seconds from adding `count` prompts together to the last one's first token."""
    found = []
    for _ in range(times):
        several = prompts(count, prompt)
        synchronize()
        start = time.perf_counter()
        requests = [engine.add(tokens, SAMPLED, max_tokens=1) for tokens in several]
        waiting = set(requests)
        while waiting:
            waiting -= {output.row.request for output in engine.step() if output.token is not None}
        found.append(time.perf_counter() - start)
        drain(engine)
    return statistics.median(found)


def behind(engine: Engine, prompts: Prompts, long: int, prompt: int, new: int, key: str) -> float:
    """Seconds to the first token of a short request that comes while `long` long ones are being served."""
    for tokens in prompts(long, prompt):
        engine.add(tokens, SAMPLED, max_tokens=new, key="long")
    engine.step()
    start = time.perf_counter()
    short = engine.add(prompts(1, 8)[0], SAMPLED, max_tokens=8, key=key)
    while not any(output.row.request is short for output in engine.step()):
        pass
    seconds = time.perf_counter() - start
    drain(engine)
    return seconds


def greedy_gap(engine: Engine, model: GPT, prompts: Prompts, streams: int, prompt: int, new: int) -> float:
    """The most by which the plain model's best logit exceeds that of a token that the engine chose.

    It is 0 where both choose the same; in bf16, tokens that nearly tie may change places.
    """
    requests = [engine.add(tokens, GREEDY, max_tokens=new) for tokens in prompts(streams, prompt)]
    drain(engine)
    worst = 0.0
    with torch.no_grad():
        for request in requests:
            row = request.rows[0]
            ids = torch.tensor([row.tokens], device=model.get_device())
            logits = model(ids)[0, len(request.prompt) - 1 : -1]
            chosen = logits.gather(1, ids[0, len(request.prompt) :, None])[:, 0]
            worst = max(worst, (logits.amax(dim=-1) - chosen).max().item())
    return worst


def drain(engine: Engine) -> None:
    while engine.busy:
        engine.step()


def copy_bandwidth() -> float:
    """Bytes a second that this GPU reads and writes in a copy of 2 GiB: the fastest that memory is seen to be."""
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(10):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    del target
    torch.cuda.reset_peak_memory_stats()
    return 2 * source.numel() / min(times)


def profiled(engine: Engine, prompts: Prompts, streams: int, prompt: int, steps: int = 16) -> dict[str, Any]:
    """Where a decoding step of `streams` streams spends its time: wall time, device time, launches, and the slowest kernels."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    cuda = torch.cuda.is_available()
    waiting = {engine.add(tokens, SAMPLED, max_tokens=10 * steps) for tokens in prompts(streams, prompt)}
    while waiting:
        waiting -= {output.row.request for output in engine.step() if output.token is not None}
    for _ in range(4):
        engine.step()
    synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        engine.step()
    synchronize()
    wall = 1000 * (time.perf_counter() - start) / steps
    with torch_profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as found:
        for _ in range(steps):
            engine.step()
        synchronize()
    for request in {row.request for row in engine.scheduler.running}:
        engine.cancel(request)
    drain(engine)
    spent = []
    for event in found.key_averages():
        on_device = "CUDA" in str(event.device_type)
        us = event.self_device_time_total if cuda else event.self_cpu_time_total
        if us > 0 and on_device == cuda:
            spent.append((us / 1000 / steps, event.count / steps, event.key))
    spent.sort(reverse=True)
    return {
        "streams": streams,
        "wall_ms": round(wall, 3),
        "busy_ms": round(sum(ms for ms, _, _ in spent), 3),
        "launches": round(sum(count for _, count, _ in spent)),
        "top": [{"ms": round(ms, 4), "launches": round(count, 1), "name": name[:110]} for ms, count, name in spent[:30]],
    }
