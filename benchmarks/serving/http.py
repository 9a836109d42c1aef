"""What the HTTP process costs by itself: CPU time of a request and of a streamed token, with a replay in place of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.process import run_job
from benchmarks.result import Measurement, measurement

VOCABULARY, PROMPT, NEW = 65_536, 512, 128
STREAMS = 32
STEP_MS = 4.0  # slow enough for the HTTP process to send the tokens of each step before the next one comes
REQUEST_US, TOKEN_US = 600, 12  # must


def rows(folder: Path, quick: bool) -> Iterator[Measurement]:
    from benchmarks.serving.client import KINDS
    from benchmarks.serving.replay import IDS
    from benchmarks.serving.replay import STEP_MS as PACE
    from benchmarks.serving.server import running
    from benchmarks.serving.vocabulary import write_tokenizer
    from nanochat.contract.contract import seal
    from nanochat.tokenizer import Tokenizer

    ids = write_tokenizer(folder / "tokenizer", VOCABULARY)
    (folder / "model").mkdir()
    (folder / "model" / "meta.json").write_text("{}", encoding="utf-8")
    seal(folder / "model")
    tokenizer, rng = Tokenizer.load(folder / "tokenizer"), Random(3)
    texts = [_text(tokenizer, rng, ids) for _ in range(16)]
    requests, rounds = (32, 1) if quick else (960, 8)
    env = {PACE: str(STEP_MS), IDS: f"{ids[0]},{ids[1]}"}
    with running(folder, "cpu", 2 * STREAMS, module="benchmarks.serving.replayed", env=env) as service:
        job: dict[str, Any] = {
            "port": service.port,
            "pid": service.pid,
            "seed": 1,
            "ids": ids,
            "prompt": PROMPT,
            "texts": texts,
        }

        def load(kind: str, new: int, count: int, concurrency: int) -> dict[str, Any]:
            found = run_job(
                "benchmarks.serving.client",
                {**job, "kind": kind, "new": new, "count": count, "concurrency": concurrency},
                seconds=300,
            )
            if found["failed"] or found["refused"]:
                raise RuntimeError(f"{found['failed'] + found['refused']} of {count} requests failed")
            return found

        for kind in KINDS:
            load(kind, 2, 2 * STREAMS, STREAMS)
            idle = load(kind, 2, 20 if quick else 200, 1)
            short = load(kind, 1, requests, STREAMS)
            long = load(kind, NEW, rounds * STREAMS, STREAMS)
            request_us = 1e6 * short["service_cpu_s"] / requests
            token_us = (1e6 * long["service_cpu_s"] - request_us * rounds * STREAMS) / long["tokens"]
            client_us = 1e6 * long["client_cpu_s"] / long["tokens"]
            name = f"HTTP alone, {kind}"
            print(
                f"{name}: {request_us:,.0f} µs a request, {token_us:,.1f} µs a token, client {client_us:,.1f};"
                f" first token when idle {idle['ttft_ms']['p50']:.2f} ms",
                flush=True,
            )
            yield measurement(f"{name}: CPU of a request", request_us, "µs", "lower", must=REQUEST_US)
            yield measurement(f"{name}: CPU of a streamed token", token_us, "µs", "lower", must=TOKEN_US, client_us=client_us)
            yield measurement(f"{name}: first token, idle, p50", idle["ttft_ms"]["p50"], "ms", "lower")


def _text(tokenizer: Any, rng: Random, ids: tuple[int, int]) -> str:
    """Words of one token each, about as many as the prompts of tokens have."""
    return " ".join(tokenizer.decode([rng.randrange(*ids)]) for _ in range(PROMPT // 2))
