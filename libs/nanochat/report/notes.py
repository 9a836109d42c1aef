"""What a reader of the figures has to know: what is missing, what was cut short, what was resumed, and the stages' warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nanochat.report.card import Note, StageCard
from nanochat.report.summary import CHATCORE, COLUMNS, TASKS, table

CORE_TASKS = 22  # CORE is the mean over as many


def of(stages: Sequence[StageCard]) -> list[Note]:
    """The notes, the most important kind first. `stages` are all stages of the graph."""
    by_name = {stage.name: stage for stage in stages}
    notes = [*_failures(stages), *_core(by_name["base_eval"]), *_chat(by_name), *_data(by_name["data"]), *_tokenizers(by_name)]
    notes += [*_resumed(stages), *_warnings(stages)]
    left_out = [stage.title for stage in stages if stage.state == "left out"]
    if left_out:
        notes.append(Note(kind="missing", text=f"Not part of this run: {', '.join(left_out).lower()}."))
    order = ("missing", "cut short", "resumed", "warning")
    return sorted(notes, key=lambda note: order.index(note.kind))


def _failures(stages: Sequence[StageCard]) -> Iterator[Note]:
    for state, words in (("failed", "Failed, so their figures are missing"), ("stopped", "Stopped before their end")):
        found = [stage for stage in stages if stage.state == state]
        if found:
            yield Note(kind="missing", text=f"{words}: {', '.join(stage.title for stage in found).lower()}.")
        for stage in found:
            if stage.why:
                yield Note(kind="missing", text=f"{stage.title} ended with: {stage.why}")
    running = [stage.title for stage in stages if stage.state == "running"]
    if running:
        yield Note(kind="missing", text=f"Still at work: {', '.join(running).lower()}.")
    beyond = [stage.title for stage in stages if stage.state == "not reached"]
    if beyond:
        yield Note(kind="missing", text=f"Not reached: {', '.join(beyond).lower()}.")


def _core(stage: StageCard) -> Iterator[Note]:
    if stage.state != "done":
        return
    core = table(stage.results.get("core"))
    if core.get("core") is None:
        lacking = [*core.get("missing", []), *core.get("partial", [])]
        names = ", ".join(map(str, lacking)) if 0 < len(lacking) < CORE_TASKS else "all of them"
        count = len(lacking) or CORE_TASKS
        text = f"No CORE: it is the mean over {CORE_TASKS} tasks, and {count} of them were incomplete ({names})."
        yield Note(kind="missing", text=text)
    yield from _failed("CORE tasks that failed", table(core.get("failed")))
    if core.get("baselines") not in (None, "original"):
        text = f"CORE is measured from DCLM's {core['baselines']} baselines, so it does not compare with the published figures."
        yield Note(kind="warning", text=text)
    if core.get("estimate"):
        text = "CORE is an estimate from a sample of each task's examples."
        yield Note(kind="cut short", text=text)


def _chat(by_name: Mapping[str, StageCard]) -> Iterator[Note]:
    chats = [by_name[chat] for _, chat in COLUMNS.values() if chat != "base_eval" and by_name[chat].state == "done"]
    evaluated = [table(stage.results.get("tasks")) for stage in chats]
    without = [tasks for stage, tasks in zip(chats, evaluated, strict=True) if stage.results.get("chatcore") is None]
    lacking = [TASKS[t] for t in CHATCORE if any(t not in tasks for tasks in without)]
    if lacking:
        yield Note(
            kind="missing",
            text=f"No ChatCORE: it is the mean over {len(CHATCORE)} tasks, and these did not run: {', '.join(lacking)}.",
        )
    for stage in chats:
        yield from _failed(f"{stage.title}, tasks that failed", table(stage.results.get("failed")))
    sampled = _those(evaluated, lambda f: f.get("n", 0) < f.get("rows", 0), lambda f: f"{f['n']:,} of {f['rows']:,}")
    if sampled:
        yield Note(kind="cut short", text=f"Only the first problems of these chat tasks were judged: {', '.join(sampled)}.")
    skipped = _those(evaluated, lambda f: f.get("skipped"), lambda f: f"{f['skipped']:,}")
    if skipped:
        text = f"Problems that do not fit into the model's context count as wrong: {', '.join(skipped)}."
        yield Note(kind="cut short", text=text)


def _failed(heading: str, failed: Mapping[str, Any]) -> Iterator[Note]:
    if failed:
        told = "; ".join(f"{TASKS.get(name, name)}: {why}" for name, why in failed.items())
        yield Note(kind="missing", text=f"{heading}: {told}")


def _those(evaluated: Sequence[Mapping[str, Any]], chosen: Any, shown: Any) -> list[str]:
    """The tasks of any evaluation whose figures are chosen, each once."""
    found: dict[str, str] = {}
    for tasks in evaluated:
        for name, figures in tasks.items():
            if isinstance(figures, Mapping) and name not in found and chosen(figures):
                found[name] = f"{TASKS.get(name, name)} {shown(figures)}"
    return list(found.values())


def _data(stage: StageCard) -> Iterator[Note]:
    missing = stage.results.get("missing_task_files") or []
    if missing:
        text = f"No data for these splits, which the recipe may not need: {', '.join(map(str, missing))}."
        yield Note(kind="missing", text=text)


def _tokenizers(by_name: Mapping[str, StageCard]) -> Iterator[Note]:
    for name, why in table(by_name["tok_eval"].results.get("not_available")).items():
        yield Note(kind="missing", text=_sentence(f"No comparison with the tokenizer {name}: {why}"))


def _sentence(text: str) -> str:
    """With one full stop at its end: messages of stages have one, causes of an end may."""
    return f"{text.removesuffix('.')}."


def _resumed(stages: Sequence[StageCard]) -> Iterator[Note]:
    for stage in stages:
        for before, attempt in zip(stage.record.attempts, stage.record.attempts[1:], strict=False):
            went_on = "from the beginning" if attempt.resumed_from_step is None else f"from step {attempt.resumed_from_step:,}"
            why = _sentence(f" Attempt {before.no} had ended: {before.ended}") if before.ended else ""
            yield Note(kind="resumed", text=f"{stage.title}: attempt {attempt.no} went on {went_on}.{why}")


def _warnings(stages: Sequence[StageCard]) -> Iterator[Note]:
    for stage in stages:
        for warned in stage.record.warnings:
            times = f" ({warned.count} times)" if warned.count > 1 else ""
            yield Note(kind="warning", text=_sentence(f"{stage.title}: {warned.message}{times}"))
