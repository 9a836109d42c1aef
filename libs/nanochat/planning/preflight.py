"""Checks of folders, columns, files and tasks that a recipe names, before any work. Imports no torch.

The API and the command line check a recipe before a run exists. The worker's machine must see the same paths as they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nanochat.config.recipe import FolderSource, HttpSource, Recipe, TaskUse
from nanochat.contract.contract import StageError
from nanochat.contract.paths import path_of
from nanochat.data import core_bundle
from nanochat.data.folder import read_folder
from nanochat.planning import origin
from nanochat.planning.graph import generated, mixtures, own_mixtures
from nanochat.rl import rewards
from nanochat.tasks import learnable
from nanochat.tasks.catalog import BY_NAME, CORE_CONFIG, find_in_folder, is_url
from nanochat.tasks.chat_file import ChatFile, open_checked, own_path
from nanochat.tasks.questions import Questions

Problem = tuple[str, str]  # field, what is wrong and what to do
CHECKED_CORE_ROWS = 1000  # of each task of the bundle, in 0.3 s; the data stage checks the others
NOT_FREE = ("bpb", "core", "chat", "chatcore", "chatcore_5")  # names of figures that are made from several tasks
CHECKED_ROWS = 10_000  # of a user's file, in 0.2 s; the data stage checks the others


def check(recipe: Recipe) -> list[Problem]:
    """All problems of the recipe; empty if it can start. Reads folders and parquet footers, but does not use the network."""
    return [*origin.problems(recipe), *_source(recipe), *_tasks(recipe), *_words(recipe), *_core(recipe)]


def _source(recipe: Recipe) -> Iterator[Problem]:
    source = recipe.data.source
    if isinstance(source, FolderSource):
        try:
            read_folder(source.path, source.column)
        except StageError as err:
            yield f"data.source.{'column' if err.code == 'no_text_column' else 'path'}", _message(err)
    elif isinstance(source, HttpSource):
        if not is_url(source.base_url):
            yield "data.source.base_url", f"{source.base_url!r} is not an http or https URL"
        try:
            unlike = source.name.format(index=0) != source.name.format(index=1)
        except (KeyError, IndexError, ValueError):
            unlike = False
        if not unlike:
            yield "data.source.name", f"{source.name!r} must contain the shard's number, as in 'shard_{{index:05d}}.parquet'"


def _tasks(recipe: Recipe) -> Iterator[Problem]:
    place = recipe.data.tasks
    root = None if place is None or is_url(place) else path_of(place)
    if root is not None and not root.is_dir():
        yield "data.tasks", f"no folder {root}; give a folder of task data, a hub's base URL, or none"
        return
    held = set(find_in_folder(root)) if root is not None else None
    whole: dict[str, ChatFile] = {}
    for field, use in mixtures(recipe):
        task = BY_NAME[use.task]
        yield from _without_effect(field, use)
        if task.kind == "file":
            yield from _jsonl(field, use, root, whole)
        elif use.split not in task.split_names:
            yield field, f"task {use.task} has no split {use.split!r}; it has: {', '.join(task.split_names)}"
        elif task.kind == "hub":
            yield from _data_set(field, f"{use.task}/{use.split}", place, held)
    for mixture in own_mixtures(recipe):
        yield from ((field, _message(err)) for field, err in learnable.problems(mixture, whole))
    judged = recipe.chat_eval.enabled and not recipe.chat_eval.allow_incomplete
    for name in recipe.chat_eval.tasks if judged else ():
        if BY_NAME[name].kind == "hub":
            yield from _data_set("chat_eval.tasks", f"{name}/test", place, held)
    yield from _own(recipe, root) if judged else ()
    if recipe.rl.enabled and (problem := rewards.unknown(recipe.rl.reward)):
        yield "rl.reward", problem
    if recipe.rl.enabled and BY_NAME[recipe.rl.task].kind == "hub":
        for split in ("train", "test"):
            yield from _data_set("rl.task", f"{recipe.rl.task}/{split}", place, held)


def _without_effect(field: str, use: TaskUse) -> Iterator[Problem]:
    """What an entry of a mixture says that its task does not read. It is refused, because the run would do something else."""
    kind = BY_NAME[use.task].kind
    if use.path is not None and kind != "file":
        yield f"{field}.path", f"task {use.task} does not read {use.path}; leave out the task, or the file"
    if use.size is not None and kind != "generated":
        yield f"{field}.size", f"task {use.task} is not generated, so it has its own size; `limit` takes its first rows"


def _own(recipe: Recipe, root: Path | None) -> Iterator[Problem]:
    seen = set(NOT_FREE)
    for i, own in enumerate(recipe.chat_eval.own):
        if own.name in seen:
            yield f"chat_eval.own.{i}.name", f"{own.name!r} is the name of another evaluation; choose one of its own"
        seen.add(own.name)
        if own.jsonl is not None and is_url(own.jsonl):
            yield f"chat_eval.own.{i}.jsonl", f"{own.jsonl} is a URL; fetch the file, and give its path"
        elif own.jsonl is not None:
            try:
                Questions.read(own.name, own_path(own.jsonl, root), CHECKED_ROWS)
            except StageError as err:
                yield f"chat_eval.own.{i}.jsonl", _message(err)


def _jsonl(field: str, use: TaskUse, root: Path | None, whole: dict[str, ChatFile]) -> Iterator[Problem]:
    """Adds to `whole` the file if every row of it was read."""
    if use.path is None:
        yield f"{field}.path", "task jsonl needs the `path` of a file of conversations"
    elif not is_url(use.path):  # the data stage fetches a URL, and reads every row of it, before anything is trained
        try:
            file = open_checked(own_path(use.path, root), CHECKED_ROWS)
        except StageError as err:
            yield f"{field}.path", _message(err)
            return
        if len(file) < CHECKED_ROWS:
            whole[use.path] = file


def _data_set(field: str, key: str, place: str | None, held: set[str] | None) -> Iterator[Problem]:
    if place is None:
        yield field, f"{key} needs task data, but data.tasks is none; set data.tasks, or leave the task out"
    elif held is not None and key not in held:
        yield field, f"{key} is not in the folder data.tasks ({place}); add it there, or leave the task out"


def _words(recipe: Recipe) -> Iterator[Problem]:
    place = recipe.data.words
    if place is None:
        for use in generated(recipe):
            if BY_NAME[use["task"]].word_list:
                yield use["field"], f"{use['task']} needs words, but data.words is none; set it, or use spelling and counting"
    elif not is_url(place) and not path_of(place).is_file():
        yield "data.words", f"no file {place}; give a word list, the URL of one, or none"


def _core(recipe: Recipe) -> Iterator[Problem]:
    place = recipe.data.core
    if place is None or is_url(place):
        return
    root = path_of(place)
    if not root.is_dir():
        yield "data.core", f"no folder {root}; give the folder of a CORE bundle, a zip's URL, or none"
        return
    bundle = core_bundle.bundle_in(root)
    if bundle is None:
        yield "data.core", f"folder {root} holds no {CORE_CONFIG}; give the folder of a CORE bundle"
        return
    try:
        found = core_bundle.problems(bundle, CHECKED_CORE_ROWS)
    except StageError as err:
        yield "data.core", _message(err)
        return
    if found and not recipe.base_eval.allow_incomplete:
        yield "data.core", f"{core_bundle.told(found)}; complete the bundle, or set base_eval.allow_incomplete"


def _message(err: StageError) -> str:
    return f"{err}; {err.hint}" if err.hint else str(err)
