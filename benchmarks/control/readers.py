"""Many readers of one live stream, in a process of their own: how long after its time stamp each reader has each event."""

from __future__ import annotations

import asyncio
import json
import time

import httpx

from benchmarks.process import job_of_argv


async def read(http: httpx.AsyncClient, path: str, count: int, ready: asyncio.Semaphore) -> list[float]:
    late: list[float] = []
    async with http.stream("GET", path, params={"kinds": "log"}, headers={"Accept": "text/event-stream"}) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith(":"):
                ready.release()
            if line.startswith("data:"):
                late.append(1000 * (time.time() - json.loads(line[5:])["t"]))
                if len(late) == count:
                    break
    return late


async def main() -> None:
    job = job_of_argv()
    ready = asyncio.Semaphore(0)
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {job['key']}"}
    async with httpx.AsyncClient(base_url=job["url"], headers=headers, limits=limits, timeout=120) as http:
        tasks = [asyncio.create_task(read(http, job["path"], job["events"], ready)) for _ in range(job["readers"])]
        for _ in tasks:
            await ready.acquire()
        with open(job["connected"], "w", encoding="utf-8"):
            pass
        done = await asyncio.gather(*tasks)
    late = sorted(x for reader in done for x in reader)
    print(json.dumps({"events": len(late), "p50": late[len(late) // 2], "p95": late[int(len(late) * 0.95)], "max": late[-1]}))


if __name__ == "__main__":
    asyncio.run(main())
