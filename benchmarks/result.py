"""The one shape of every benchmark's result: measurements, and the JSON object that is the last line printed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.options import Options
from benchmarks.process import ROOT

RESULTS = ROOT / "benchmarks" / "results"

Measurement = dict[str, Any]


def measurement(
    name: str,
    value: float,
    unit: str,
    better: str,
    peer: str | None = None,
    peer_value: float | None = None,
    must: float | None = None,
    aim: float | None = None,
    **more: object,
) -> Measurement:
    """One row of the result. `better` is "higher" or "lower"; a ratio above 1 is in our favour either way.

    `must` and `aim` bound the ratio to the peer, or the value itself where no peer is named. A peer that could not be measured
    has no value, and then nothing is judged. `more` is kept as it is.
    """
    ratio = None
    if peer_value is not None:
        ratio = peer_value / value if better == "lower" else value / peer_value
    bound = (must if must is not None else aim) if peer is None or peer_value is not None else None
    measured = value if ratio is None else ratio
    good = (
        measured <= bound if better == "lower" and ratio is None and bound is not None else bound is None or measured >= bound
    )
    return {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "better": better,
        "peer": peer,
        "peer_value": None if peer_value is None else round(peer_value, 3),
        "ratio": None if ratio is None else round(ratio, 3),
        "must": must,
        "aim": aim,
        "ok": None if bound is None else good,
        **more,
    }


def show(row: Measurement) -> None:
    """Print a row as soon as it is measured: a machine that is taken away takes no reading with it."""
    peer = f"{row['ratio']:.2f} x {row['peer']}" if row["ratio"] else ""
    verdict = {None: "", True: "met", False: "MISSED"}[row["ok"]]
    print(f"{row['name']:<72} {row['value']:>12,.3f} {row['unit']:<8} {peer:<28} {verdict}".rstrip(), flush=True)


def finish(bench: str, device: str, rows: list[Measurement], options: Options) -> None:
    """Print the result as one line of JSON; with --record also write it to `benchmarks/results/<bench>-<device>.json`."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    result = {"bench": bench, "device": device, "commit": options.commit or head(), "time": now, "rows": rows}
    if options.record:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{bench}-{device}.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, ensure_ascii=False))


def cpu() -> str:
    """This machine's processors as part of a file name, such as 2x-amd-epyc-9b14."""
    name = f"{os.cpu_count()}x {platform.machine()}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = f"{os.cpu_count()}x {next(line for line in lines if line.startswith('model name')).split(':')[1]}"
    except (OSError, StopIteration):
        pass
    return slug(name)


def slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name).split()).lower()


def head() -> str | None:
    """The commit that is checked out; None in a copy without its history."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
