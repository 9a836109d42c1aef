"""The fault campaign: `python -m tests.faults.campaign [--count N] [--seconds S] [--only PATTERN] [--lanes L --log FILE --resume]`.

Each fault of the table hits a run of its own, at a random moment, on a real stack: Postgres, Valkey, Celery, torchrun. The run must
end as it would have without the fault, and `checks` must hold. The table is gone through in rounds; the number of the round is the
seed. A lane is a process with a stack of its own, which takes every L-th round: most of a fault's time is waiting.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random

from tests.faults.campaign import outcome as outcomes
from tests.faults.campaign.case import Case
from tests.faults.campaign.checks import problems
from tests.faults.campaign.faults import FAULTS, Fault
from tests.faults.campaign.outcome import Outcome
from tests.faults.campaign.stack import PATIENCE_S, Stack

REPOSITORY = Path(__file__).parents[3]

Job = tuple[Fault, int]


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(argv)
    faults = [fault for fault in FAULTS if re.search(options.only, fault.name)]
    number = len(faults) if options.count is None else options.count
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # the stacks are closed
    log: Path = options.log or Path(tempfile.mkstemp(suffix=".jsonl", prefix="faults-")[1])
    if options.write:
        outcomes.write_into(options.write, outcomes.table(outcomes.read(log), [fault.name for fault in faults]))
        return 0
    done = {(o.fault, o.seed) for o in outcomes.read(log)}
    if done and not options.resume and options.lane is None:
        sys.exit(f"{log} holds the outcomes of {len(done)} faults; go on with --resume, or name another file")
    if options.lanes > 1 and options.lane is None:
        code = _run_lanes(argv, log, options.lanes)
    else:
        jobs = (job for jobs in rounds(number, faults, options.seed, options.lane or 0, options.lanes) for job in jobs)
        _run(log, (job for job in jobs if (job[0].name, job[1]) not in done), options.seconds)
        code = 0
    if options.lane is None:
        seen = outcomes.read(log)
        print(outcomes.table(seen, [fault.name for fault in faults]))
        code = code or (1 if any(outcome.problems for outcome in seen) else 0)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--count", type=int, help="how many faults (default: the whole table once)")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no fault after so many seconds")
    parser.add_argument("--only", default="", help="only faults whose name matches this pattern")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each later one has the next number")
    parser.add_argument("--log", type=Path, help="append each outcome to this file, as a JSON line")
    parser.add_argument("--resume", action="store_true", help="leave out the faults that the log already holds")
    parser.add_argument("--lanes", type=int, default=1, help="how many stacks to run side by side")
    parser.add_argument("--lane", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="inflict nothing: write the log's table into this page")
    return parser


def _run_lanes(argv: Sequence[str], log: Path, lanes: int) -> int:
    command = [sys.executable, "-m", "tests.faults.campaign", *argv, "--log", str(log)]
    started = [subprocess.Popen([*command, "--lane", str(lane)]) for lane in range(lanes)]
    try:
        return max(process.wait() for process in started)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def _run(log: Path, jobs: Iterator[Job], seconds: float) -> None:
    for number, outcome in enumerate(campaign(jobs, seconds, log.with_suffix(".failed")), 1):
        outcome.append_to(log)
        word = "skipped" if outcome.skipped else "ok" if not outcome.problems else "FAILED"
        print(f"{number:5} {word:8} {outcome.seconds:5.1f} s  {outcome.fault}  {'; '.join(outcome.notes)}", flush=True)
        for problem in outcome.problems:
            print(f"          {problem}", flush=True)


def campaign(jobs: Iterator[Job], seconds: float, failed: Path) -> Iterator[Outcome]:
    """Inflict the faults in turn. After a failure the stack is made anew, so that one failure does not cause the next.

    The logs and the run's files of a failure are kept in `failed`.
    """
    began = time.monotonic()
    stack: Stack | None = None
    try:
        for fault, seed in jobs:
            if time.monotonic() - began > seconds:
                return
            stack = stack or Stack(Path(tempfile.mkdtemp(prefix="faults-")))
            outcome = inflict(stack, fault, seed)
            if outcome.problems:
                stack.close(keep=failed / f"{fault.name.replace('/', ' ')} {seed}")
                stack = None
            yield outcome
    finally:
        if stack is not None:
            stack.close()


def rounds(number: int, faults: Sequence[Fault], first: int, lane: int, lanes: int) -> Iterator[list[Job]]:
    """The faults of each round of a lane. The last round is cut off where `number` is reached, counted over all lanes.

    Faults of the same services follow each other, because a start of a service takes seconds.
    """
    for seed in count(first + lane, lanes):
        left = number - (seed - first) * len(faults)
        if left <= 0:
            return
        random = Random(seed)
        groups = {fault.services: random.random() for fault in faults}
        order = sorted(faults, key=lambda fault: (groups[fault.services], random.random()))
        yield [(fault, seed) for fault in order[:left]]


def inflict(stack: Stack, fault: Fault, seed: int) -> Outcome:
    began, at, load = time.monotonic(), datetime.now(UTC), os.getloadavg()[0]
    if lacking := stack.lacks(fault.needs):
        return Outcome(fault.name, seed, 0.0, (), skipped=lacking)
    case = Case(stack, fault.plan, Random(f"{seed} {fault.name}"))
    found: list[str] = []
    try:
        stack.use(*fault.services)
        before = {name: service.restarts for name, service in stack.services.items()}
        case.submit()
        stack.watcher = case.watch
        fault.act(case)
        stack.mend()
        stack.wait(lambda: (status := case.status()) and status.is_finished, "the run to end", PATIENCE_S)
        found = list(_verdict(case, fault))
        died = [name for name, service in stack.services.items() if service.restarts != before[name]]
        if died and not fault.restarts:
            found.append(f"no service dies: {', '.join(died)} died")
    except Exception as err:
        found.append(f"the run ends: {type(err).__name__}: {err} (the run is {case.status()}, {_story(case)})")
        if not isinstance(err, TimeoutError):
            traceback.print_exc()
    stack.watcher = lambda: None
    return Outcome(
        fault.name,
        seed,
        round(time.monotonic() - began, 1),
        found,
        [note for note in case.notes if note],
        standstill=round(case.standstill, 2),
        commit=COMMIT,
        began=at.isoformat(timespec="seconds"),
        load=round(load, 1),
        attempts=_attempts(case),
    )


def _verdict(case: Case, fault: Fault) -> Iterator[str]:
    if (status := case.status()) is not fault.ends:
        yield f"the run ends as it should: it is {status}: {_story(case)}"
    yield from problems(case)
    attempts = case.attempts()
    if fault.attempts is not None and len(attempts) != fault.attempts:
        yield f"training does not notice: {len(attempts)} attempts instead of {fault.attempts}: {_story(case)}"


def _story(case: Case) -> str:
    return ", ".join(f"{a.no} on {a.worker_id}: {a.reason or a.status} {a.message[:200]}" for a in case.attempts())


def _attempts(case: Case) -> int:
    try:
        return len(case.attempts())
    except Exception:
        return 0


def _commit() -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=10"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return described.stdout.strip()


COMMIT = _commit()

if __name__ == "__main__":
    sys.exit(main())
