"""What became of each fault: the rows of the campaign's log, and the table that is made of them."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

BEGIN, END = "<!-- made by `--write` -->", "<!-- end -->"


@dataclass(frozen=True)
class Outcome:
    """One fault and its run. A problem is `<name of the check>: <what is wrong>`."""

    fault: str
    seed: int
    seconds: float
    problems: Sequence[str]
    notes: Sequence[str] = ()
    skipped: str = ""
    standstill: float = 0.0  # the longest time in seconds without a step further than all before
    commit: str = ""
    began: str = ""
    load: float = 0.0  # of the machine, when it began
    attempts: int = 0

    def append_to(self, log: Path) -> None:
        with log.open("a", encoding="utf-8") as file:  # one write, so that lanes can share the file
            file.write(json.dumps(asdict(self)) + "\n")


def read(log: Path) -> list[Outcome]:
    if not log.exists():
        return []
    return [Outcome(**json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]


def table(outcomes: Iterable[Outcome], names: Sequence[str]) -> str:
    """Markdown: for each fault how often it was inflicted and survived, which checks failed, and how long training stood still."""
    by_name: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if not outcome.skipped:
            by_name[outcome.fault].append(outcome)
    rows = ["| fault | runs | survived | broken | recovery s (median) |", "|---|---:|---:|---|---:|"]
    everything = [outcome for of in by_name.values() for outcome in of]
    rows += [_row(name, by_name[name]) for name in [*names, *sorted(by_name.keys() - set(names))]]
    return "\n".join([*rows, _row("**all**", everything), "", _circumstances(everything)])


def _row(name: str, of: Sequence[Outcome]) -> str:
    survived = sum(not outcome.problems for outcome in of)
    broken = Counter(
        check for outcome in of for check in dict.fromkeys(problem.partition(":")[0] for problem in outcome.problems)
    )
    median = f"{statistics.median(outcome.standstill for outcome in of):.1f}" if of else ""
    return f"| {name} | {len(of)} | {survived} | {', '.join(f'{check} ({n})' for check, n in broken.items())} | {median} |"


def _circumstances(of: Sequence[Outcome]) -> str:
    if not of:
        return "Nothing was inflicted."
    commits = ", ".join(f"{commit} ({n})" for commit, n in Counter(outcome.commit for outcome in of).items())
    begins, loads = sorted(outcome.began for outcome in of), [outcome.load for outcome in of]
    return f"From {begins[0]} to {begins[-1]}, at a load of {min(loads):.0f} to {max(loads):.0f}. Commits: {commits}."


def write_into(page: Path, text: str) -> None:
    """Put the text between the page's two marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{page} lacks the lines {BEGIN} and {END}, between which the table belongs")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
