"""`python -m benchmarks.serving.client <json>`: one load on a running server; prints one line of JSON.

Job: port; seed; ids, bounds of the prompts' tokens; prompt and new, tokens of each; count, requests in all; and either
`concurrency` (each of so many clients sends its next request when the last one has ended) or `rate` (requests a second that
arrive by a Poisson process, whatever has ended). `kind`, `tokens` if it is left out: how the prompt is sent, see KINDS;
`texts`, prompts for the kinds that send text; `pid`, a process whose CPU time is told.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

import uvloop

from benchmarks.process import cpu_seconds, job_of_argv
from benchmarks.serving.connection import Answer, Connection, request

# The path, and the field of the body that holds the prompt, made from its tokens or its text.
KINDS: dict[str, tuple[str, Callable[[list[int], str], dict[str, Any]]]] = {
    "tokens": ("/v1/completions", lambda tokens, _: {"prompt": tokens}),
    "text": ("/v1/completions", lambda _, text: {"prompt": text}),
    "chat": ("/v1/chat/completions", lambda _, text: {"messages": [{"role": "user", "content": text}]}),
}


class Clients:
    """Connections to the server; one that is free is used again."""

    def __init__(self, port: int):
        self._port = port
        self._free: list[Connection] = []

    async def ask(self, raw: bytes, answers: list[Answer]) -> None:
        connection = self._free.pop() if self._free else None
        if connection is None or not connection.open:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
        await connection.ask(raw, answers)
        self._free.append(connection)

    def close(self) -> None:
        for connection in self._free:
            connection.close()


def requests(job: dict[str, Any]) -> list[bytes]:
    rng = random.Random(job["seed"])
    path, prompt = KINDS[job.get("kind", "tokens")]
    texts = job.get("texts") or [""]
    fixed = {"max_tokens": job["new"], "temperature": 1.0, "top_k": 50, "stream": True}
    fixed["stream_options"] = {"include_usage": True}
    return [
        request(
            path,
            prompt([rng.randrange(*job["ids"]) for _ in range(job["prompt"])], texts[number % len(texts)])
            | {**fixed, "seed": number},
        )
        for number in range(job["count"])
    ]


async def measure(job: dict[str, Any]) -> dict[str, Any]:
    rng, raws = random.Random(job["seed"]), requests(job)
    answers: list[Answer] = []
    clients = Clients(job["port"])
    served, own = cpu_of(job.get("pid")), cpu_seconds()
    start = time.perf_counter()
    if job.get("rate"):
        async with asyncio.TaskGroup() as tasks:
            due = start
            for raw in raws:
                due += rng.expovariate(job["rate"])
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.create_task(clients.ask(raw, answers))
    else:
        waiting = iter(raws)

        async def one_after_the_other() -> None:
            for raw in waiting:
                await clients.ask(raw, answers)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(job["concurrency"]):
                tasks.create_task(one_after_the_other())
    seconds = time.perf_counter() - start
    clients.close()
    cpu = {"client_cpu_s": cpu_seconds() - own, "service_cpu_s": cpu_of(job.get("pid")) - served}
    return summary(answers, seconds) | cpu


def cpu_of(pid: int | None) -> float:
    """CPU seconds of a process and all its threads so far, by its clock (clock_getcpuclockid). /proc tells them in hundredths only."""
    return 0.0 if pid is None else time.clock_gettime((~pid << 3) | 2)


def summary(answers: list[Answer], seconds: float) -> dict[str, Any]:
    done = [answer for answer in answers if answer.tokens]
    gaps = [b - a for answer in done for a, b in zip(answer.arrivals, answer.arrivals[1:], strict=False)]
    return {
        "requests": len(answers),
        "refused": sum(answer.status == 429 for answer in answers),
        "failed": sum(answer.status != 429 and not answer.tokens for answer in answers),
        "seconds": seconds,
        "tokens": sum(answer.tokens for answer in done),
        "tok_per_s": sum(answer.tokens for answer in done) / seconds,
        "requests_per_s": len(done) / seconds,
        "goodput_per_s": sum(answer.good for answer in done) / seconds,
        "ttft_ms": percentiles([answer.first for answer in done]),
        "between_ms": percentiles(gaps),
        "tokens_per_piece": sum(answer.tokens for answer in done) / max(1, sum(len(answer.arrivals) for answer in done)),
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    found = sorted(seconds) or [float("nan")]
    return {f"p{share}": 1000 * found[min(len(found) - 1, len(found) * share // 100)] for share in (50, 99)}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measure(job_of_argv()))))
