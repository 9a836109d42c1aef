"""`python -m benchmarks.serving.client <json>`: one load on a running server; prints one line of JSON.

Job: url; seed; ids, bounds of the prompts' tokens; prompt and new, tokens of each; count, requests in all; and either
`concurrency` (each of so many clients sends its next request when the last one has ended) or `rate` (requests a second that
arrive by a Poisson process, whatever has ended).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.process import job_of_argv

TEXT = re.compile(r'"text": ?"(?!")')  # of a piece that is not empty; far quicker than reading the whole object
TTFT_S, BETWEEN_S = 0.2, 0.02  # what a request must keep to count as good


@dataclass
class Answer:
    begun: float
    arrivals: list[float] = field(default_factory=list)  # of each piece of text
    status: int = 0
    tokens: int = 0

    @property
    def first(self) -> float:
        return self.arrivals[0] - self.begun

    @property
    def between(self) -> float:
        """Mean seconds from one token to the next."""
        return (self.arrivals[-1] - self.arrivals[0]) / max(1, self.tokens - 1)

    @property
    def good(self) -> bool:
        return self.tokens > 0 and self.first <= TTFT_S and self.between <= BETWEEN_S


async def measure(job: dict[str, Any]) -> dict[str, Any]:
    rng = random.Random(job["seed"])
    low, high = job["ids"]
    bodies = [
        {
            "prompt": [rng.randrange(low, high) for _ in range(job["prompt"])],
            "max_tokens": job["new"],
            "temperature": 1.0,
            "top_k": 50,
            "seed": number,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for number in range(job["count"])
    ]
    answers: list[Answer] = []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=job["url"], limits=limits, timeout=300) as http:
        await http.get("/v1/models")
        start = time.perf_counter()
        if job.get("rate"):
            async with asyncio.TaskGroup() as tasks:
                due = start
                for body in bodies:
                    due += rng.expovariate(job["rate"])
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    tasks.create_task(ask(http, body, answers))
        else:
            waiting = iter(bodies)

            async def one_after_the_other() -> None:
                for body in waiting:
                    await ask(http, body, answers)

            async with asyncio.TaskGroup() as tasks:
                for _ in range(job["concurrency"]):
                    tasks.create_task(one_after_the_other())
        return summary(answers, time.perf_counter() - start)


async def ask(http: httpx.AsyncClient, body: dict[str, Any], answers: list[Answer]) -> None:
    """Send one request and note when its pieces arrive."""
    answer = Answer(time.perf_counter())
    answers.append(answer)
    async with http.stream("POST", "/v1/completions", json=body) as response:
        answer.status = response.status_code
        if answer.status != 200:
            await response.aread()
            return
        async for line in response.aiter_lines():
            if TEXT.search(line):
                answer.arrivals.append(time.perf_counter())
            elif '"completion_tokens"' in line:
                answer.tokens = json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"]


def summary(answers: list[Answer], seconds: float) -> dict[str, Any]:
    done = [answer for answer in answers if answer.tokens]
    gaps = [b - a for answer in done for a, b in zip(answer.arrivals, answer.arrivals[1:], strict=False)]
    return {
        "requests": len(answers),
        "refused": sum(answer.status == 429 for answer in answers),
        "failed": sum(answer.status != 429 and not answer.tokens for answer in answers),
        "seconds": seconds,
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
    print(json.dumps(asyncio.run(measure(job_of_argv()))))
