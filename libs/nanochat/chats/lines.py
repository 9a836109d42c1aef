"""A checked file as lines for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from nanochat.chats.check import Check
from nanochat.tasks.chat_file import UNTAUGHT

SHOWN = 20  # places of one kind; --json has them all


def lines(found: Check) -> Iterator[str]:
    """What the file holds, then what is wrong with it, then whether a run accepts it."""
    forms = ", ".join(f"{count:,} {form}" for form, count in found.forms.items())
    yield f"{found.file}: {_count(found.rows, 'conversation')}" + (f" ({forms})" if forms else "")
    yield f"  answers        {found.answers:,}; {found.characters:,} characters of all messages"
    yield from _tokens(found)
    if found.compared_with:
        tasks = Counter(overlap.task for overlap in found.overlaps)
        core = sum(name.startswith("core/") for name in found.compared_with)
        names = [name for name in found.compared_with if not name.startswith("core/")] + (
            [f"{core} tasks of CORE"] if core else []
        )
        yield f"  evaluations    compared with {', '.join(names)}: {_count(len(found.overlaps), 'question')} of theirs"
        for task in tasks:
            yield f"    {task}: {_places(found.unit, [o.place for o in found.overlaps if o.task == task])}"
    else:
        yield "  evaluations    not compared: there are no task data; name a folder of them with --tasks"
    for name, places in (("duplicates", found.duplicates), ("empty answers", found.empty_answers)):
        if places:
            yield f"  {name:<14} {len(places):,}: {_places(found.unit, places)}"
    if found.broken:
        yield f"  broken         {len(found.broken):,} that are no conversation:"
        yield from (f"    {found.unit} {b.place}: {b.problem}" for b in found.broken[:SHOWN])
        if len(found.broken) > SHOWN:
            yield f"    and {len(found.broken) - SHOWN:,} more"
    yield f"  a run accepts it: {'yes' if found.is_good else 'no, ' + _why_not(found)}"


def _tokens(found: Check) -> Iterator[str]:
    tokens = found.tokens
    if tokens is None:
        if found.rows:
            yield "  tokens         not counted: no run on this machine has made a tokenizer; name one with --tokenizer"
        return
    yield f"  tokens         {tokens.total:,}, by {tokens.tokenizer}"
    yield f"  row            {tokens.median:,} in the middle, {tokens.longest:,} the longest ({found.unit} {tokens.longest_place})"
    yield f"  trained        {tokens.trained:,} in SFT, {tokens.share:.1%} of those that are kept"
    yield f"  cut            {_count(tokens.longer_rows, 'row')} longer than {tokens.context:,} tokens, {tokens.cut:,} tokens cut off"
    if tokens.unlearned_rows:
        yield f"  not learned    {_count(tokens.unlearned_rows, 'row')} whose answers begin after that, or have the weight 0"


def _why_not(found: Check) -> str:
    if found.broken:
        return "mend or remove what is broken"
    if found.rows and not found.taught:
        return UNTAUGHT
    return "every row is longer than the context" if found.rows else "it holds no conversation"


def _places(unit: str, places: Sequence[int]) -> str:
    more = f" and {len(places) - SHOWN:,} more" if len(places) > SHOWN else ""
    return f"{unit}s {', '.join(f'{place}' for place in places[:SHOWN])}{more}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
