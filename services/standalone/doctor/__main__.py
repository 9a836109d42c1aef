"""`python -m services.standalone.doctor`. Exit code 1 if there is a problem."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict

from client.errors import ClientError
from client.settings import discover
from services.standalone.doctor import addresses, gpu, machine
from services.standalone.doctor.finding import Finding, Level, bad

MARKS = {Level.FINE: "✓", Level.ODD: "!", Level.BAD: "✗"}


def findings() -> Iterator[Finding]:
    names = gpu.gpus()
    try:
        here = discover()
    except ClientError as err:  # it says what to do
        yield bad("settings", str(err), "then run nanochat doctor again")
        return
    running = (here.home / "stack.json").is_file() or "NANOCHAT_API_URL" in os.environ
    yield from machine.python()
    yield from machine.packages()
    yield from gpu.driver(names)
    yield from gpu.torch(names)
    yield from machine.shared_memory(len(names or []))
    yield from machine.disk(here.home)
    yield from machine.permissions(here.home)
    yield from machine.limits()
    yield from addresses.ports()
    yield from addresses.proxy()
    yield from addresses.clock(here.home, here.api_url)
    yield from addresses.database(os.environ.get("NANOCHAT_DATABASE_URL"))
    yield from addresses.broker(os.environ.get("NANOCHAT_REDIS_URL"))
    yield from addresses.api(here.api_url, here.api_key, expected=running)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nanochat doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, as the checks end")
    as_json = parser.parse_args(argv).json
    worst = dict.fromkeys(Level, 0)
    for found in findings():
        worst[found.level] += 1
        if as_json:
            print(json.dumps(asdict(found), ensure_ascii=False), flush=True)
            continue
        print(f"{MARKS[found.level]} {found.check}: {found.text}", flush=True)
        if found.remedy:
            print(f"    → {found.remedy}", flush=True)
    if not as_json:
        print(f"problems: {worst[Level.BAD]}, warnings: {worst[Level.ODD]}")
    return 1 if worst[Level.BAD] else 0


if __name__ == "__main__":
    raise SystemExit(main())
