"""The fault campaign: `python -m tests.faults.campaign [--count N] [--seconds S] [--only PATTERN]`.

Each fault of the table hits a run of its own, at a random moment, on one real stack: Postgres, Valkey, Celery, torchrun. The run
must end as it would have without the fault, and `checks` must hold. Faults are taken from the table in turn.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

from tests.faults.campaign.case import Case
from tests.faults.campaign.checks import problems
from tests.faults.campaign.faults import FAULTS, Fault
from tests.faults.campaign.stack import Stack

END_S = 150.0


@dataclass(frozen=True)
class Outcome:
    fault: Fault
    seed: int
    seconds: float
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def ok(self) -> bool:
        """Whether it came out as the table says: a fault that is known to fail must fail."""
        return bool(self.skipped) or bool(self.problems) == bool(self.fault.known)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--count", type=int, default=len(FAULTS), help="how many faults (default: the whole table once)")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no fault after so many seconds")
    parser.add_argument("--only", default="", help="only faults whose name matches this pattern")
    parser.add_argument("--seed", type=int, default=0, help="of the first fault; each later one has the next number")
    parser.add_argument("--log", type=Path, help="append each outcome to this file, as a JSON line")
    options = parser.parse_args(argv)
    faults = [fault for fault in FAULTS if re.search(options.only, fault.name)]
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # the stack is closed
    outcomes: list[Outcome] = []
    for outcome in campaign(faults, options.count, options.seconds, options.seed):
        outcomes.append(outcome)
        word = "skipped" if outcome.skipped else "ok" if not outcome.problems else "FAILED"
        print(
            f"{len(outcomes):5} {word:8} {outcome.seconds:5.1f} s  {outcome.fault.name}  {'; '.join(outcome.notes)}", flush=True
        )
        for problem in outcome.problems:
            print(f"          {problem}", flush=True)
        if options.log:
            with options.log.open("a") as file:
                file.write(json.dumps(as_json(outcome)) + "\n")
    print(table(outcomes))
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def campaign(faults: Sequence[Fault], number: int, seconds: float = 1e9, seed: int = 0) -> Iterator[Outcome]:
    """Inflict `number` faults in turn. After a failure, the stack is made anew, so that one failure does not cause the next."""
    began = time.monotonic()
    stack: Stack | None = None
    try:
        for i in count():
            if i >= number or time.monotonic() - began > seconds:
                return
            stack = stack or Stack(Path(tempfile.mkdtemp(prefix="faults-")))
            outcome = inflict(stack, faults[i % len(faults)], seed + i)
            if outcome.problems:
                stack.close()
                stack = None
            yield outcome
    finally:
        if stack is not None:
            stack.close()


def inflict(stack: Stack, fault: Fault, seed: int) -> Outcome:
    began = time.monotonic()
    if fault.needs_mount and not stack.mounted:
        return Outcome(fault, seed, 0.0, (), skipped="this machine does not let us mount a file system")
    case = Case(stack, fault.plan, Random(seed))
    found: list[str] = []
    try:
        stack.use(*fault.services)
        before = {name: service.restarts for name, service in stack.services.items()}
        case.submit()
        fault.act(case)
        stack.mend()
        stack.wait(lambda: (status := case.status()) and status.is_finished, "the run to end", END_S)
        found = list(verdict(case, fault))
        died = [name for name, service in stack.services.items() if service.restarts != before[name]]
        if died and not fault.restarts:
            found.append(f"services died: {', '.join(died)}")
    except Exception as err:
        found.append(f"{type(err).__name__}: {err} (the run is {case.status()}, {story(case)})")
        if not isinstance(err, TimeoutError):
            traceback.print_exc()
    return Outcome(fault, seed, time.monotonic() - began, tuple(found), tuple(note for note in case.notes if note))


def verdict(case: Case, fault: Fault) -> Iterator[str]:
    if (status := case.status()) is not fault.ends:
        yield f"the run is {status}: {story(case)}"
    yield from problems(case)
    attempts = case.attempts()
    if fault.attempts is not None and len(attempts) != fault.attempts:
        yield f"{len(attempts)} attempts instead of {fault.attempts}: {story(case)}"


def story(case: Case) -> str:
    return ", ".join(f"{a.no} on {a.worker_id}: {a.reason or a.status} {a.message[:200]}" for a in case.attempts())


def as_json(outcome: Outcome) -> dict[str, object]:
    return {
        "fault": outcome.fault.name,
        "seed": outcome.seed,
        "seconds": round(outcome.seconds, 1),
        "problems": outcome.problems,
        "notes": outcome.notes,
        "skipped": outcome.skipped,
    }


def table(outcomes: Sequence[Outcome]) -> str:
    """A table in Markdown: each fault, how often it was inflicted and survived, and how long such a run took."""
    by_name: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_name[outcome.fault.name].append(outcome)
    rows = ["| fault | runs | survived | median s | note |", "|---|---:|---:|---:|---|"]
    for name, of in by_name.items():
        done = [o for o in of if not o.skipped]
        survived = sum(not o.problems for o in done)
        seconds = f"{statistics.median(o.seconds for o in done):.0f}" if done else ""
        notes = sorted({*(n for o in of for n in o.notes), *(o.skipped for o in of if o.skipped)})
        rows.append(f"| {name} | {len(done)} | {survived} | {seconds} | {'; '.join([*notes, of[0].fault.known]).strip('; ')} |")
    done = [o for o in outcomes if not o.skipped]
    rows.append(f"| **all** | {len(done)} | {sum(not o.problems for o in done)} | | |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
