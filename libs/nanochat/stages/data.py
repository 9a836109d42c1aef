"""data: fetch or find everything a run reads: pretraining shards, task data, the word list and the CORE bundle.

The shards for the tokenizer are published as soon as enough of them have arrived. The others are fetched while the tokenizer
trains.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.config.recipe import DataSpec, PydocsSource, TokenizerSpec
from nanochat.contract.contract import Artifact, Exit, StageContext, StageError, write_json
from nanochat.contract.paths import path_of
from nanochat.data import folder
from nanochat.data.corpus import Corpus, open_corpus
from nanochat.data.fetch import Fetcher, Stopped
from nanochat.data.hub import core_bundle, own_files, task_files, word_list
from nanochat.data.overlap import WORTH_A_WARNING
from nanochat.data.shards import Shard, require_text, write_index
from nanochat.data.words import frequent_words
from nanochat.planning.graph import GENERATED, OWN_FILES, SAMPLE, WORD_LIST
from nanochat.stages.data_checks import allowed, check_core, check_mixtures, check_tasks
from nanochat.tasks.catalog import SPLITS, is_url
from nanochat.tasks.registry import named
from nanochat.tasks.source import TaskSource, write_source

_EVERY = 0.5  # seconds between progress events


def run(ctx: StageContext) -> None:
    """Publish `tok_shards`, then `shards`, `tasks`, `core` and `results`. Raises StageError, also on a stop request."""
    if ctx.rank:
        return
    spec = DataSpec.model_validate(ctx.spec.config["data"])
    doc_cap = TokenizerSpec.model_validate(ctx.spec.config["tokenizer"]).doc_cap
    report = _Reporter(ctx)
    started = time.monotonic()
    with Fetcher(received=report.received, stopped=ctx.stop_requested, warn=report.warn) as fetcher:
        try:
            own = own_files(ctx.spec.config.get(OWN_FILES, []), _tasks_root(spec), Path(ctx.spec.cache_dir), fetcher)
            check_mixtures(ctx, own, _tasks_root(spec))
            given_words = _given_words(ctx, fetcher)
            corpus = open_corpus(spec.source, Path(ctx.spec.cache_dir), doc_cap, fetcher, report.progress)
            train, val = _gather_shards(ctx, spec, corpus, report)
            words = _checked_words(ctx, train, given_words, report)
            _publish_index(ctx, "shards", train, val)  # from here on the model may train
            found = _publish_tasks(ctx, spec, words, own, given_words, fetcher, report)
            check_tasks(ctx, TaskSource.load(ctx.out / "tasks"))
            core = _publish_core(ctx, spec, fetcher)
        except Stopped as err:
            raise StageError(
                "stopped on request; everything that was fetched is kept", code="stopped", exit_code=Exit.STOPPED
            ) from err
    ctx.publish_results(
        {
            "source": spec.source.model_dump(mode="json"),
            "train_shards": len(train),
            "train_chars": sum(s.chars or 0 for s in train),
            "train_bytes": sum(s.bytes for s in train),
            "val_shard": folder.named([Path(s.path) for s in val]),
            "val_chars": sum(s.chars or 0 for s in val),
            **({} if corpus.overlap is None else {"val_in_train_pct": round(100 * corpus.overlap.share, 1)}),
            "task_files": {key: [p.name for p in paths] for key, paths in found.items()},
            "missing_task_files": [key for key in SPLITS if key not in found],
            "words": len(words),
            "core": str(core) if core else None,
            "fetched_bytes": report.bytes,
            "seconds": round(time.monotonic() - started, 1),
        }
    )


def _gather_shards(ctx: StageContext, spec: DataSpec, corpus: Corpus, report: _Reporter) -> tuple[list[Shard], list[Shard]]:
    """Publish `tok_shards`, and return the (train, val) shards once they are all ready.

    `tok_shards` are the first shards, in order, that together hold `tok_chars` characters. They do not depend on the order in
    which shards arrive. A run that does not pretrain takes no others: it needs text only for the word list.
    """
    shards: dict[str, list[Shard]] = {"train": [], "val": []}
    tok_shards: Artifact | None = None
    chars = 0
    with closing(corpus.ready(report.progress, ctx.stop_requested)) as arriving:
        for split, ready in arriving:
            shards[split].append(ready.shard)
            if split == "train":
                chars += ready.capped_chars
                if tok_shards is None and chars >= spec.tok_chars:
                    tok_shards = _publish_index(ctx, "tok_shards", shards["train"], [])
                    if ctx.spec.config.get("text") == SAMPLE:
                        break
    require_text(shards["train"], f"data.source ({spec.source.kind})")
    require_text(shards["val"], f"the validation shard of data.source ({spec.source.kind})")
    _say_what_validates(ctx, corpus, shards["val"])
    if tok_shards is None:
        _warn_if_short(ctx, spec, sum(s.chars or 0 for s in shards["train"]), chars)
        _publish_index(ctx, "tok_shards", shards["train"], [])
    return shards["train"], shards["val"]


def _publish_index(ctx: StageContext, name: str, train: list[Shard], val: list[Shard]) -> Artifact:
    write_index(ctx.out / name, train, val)
    return ctx.publish(name, ctx.out / name, train=len(train), val=len(val))


def _say_what_validates(ctx: StageContext, corpus: Corpus, val: list[Shard]) -> None:
    name = folder.named([Path(s.path) for s in val])
    message = f"validation text: {name}, {sum(s.chars or 0 for s in val):,} characters"
    ctx.events.emit("log", level="info", message=message)
    if corpus.overlap is not None and (share := corpus.overlap.share) >= WORTH_A_WARNING:
        ctx.events.emit(
            "warning",
            code="trained_on_validation",
            message=f"{share:.0%} of the validation documents in {name} are also trained on: bits per byte will look better than "
            "they are; keep other text for validation",
        )


def _warn_if_short(ctx: StageContext, spec: DataSpec, chars: int, capped: int) -> None:
    """`capped` counts the characters of which the tokenizer may learn."""
    if isinstance(spec.source, PydocsSource):
        wanted, where = spec.source.max_chars, "documentation on this machine"
        if chars >= 0.9 * wanted:
            return
    else:
        wanted, where = spec.tok_chars, "text at data.source"
    there = f"there are only {chars:,} characters of {where}"
    if chars > capped:
        there = f"there are {chars:,} characters of {where}, {capped:,} of them within tokenizer.doc_cap"
    ctx.events.emit(
        "warning", code="little_text", message=f"{there}; the recipe asks for {wanted:,}, and the run continues with these"
    )


def _publish_tasks(
    ctx: StageContext,
    spec: DataSpec,
    words: list[str],
    own: dict[str, list[Path]],
    given_words: Path | None,
    fetcher: Fetcher,
    report: _Reporter,
) -> dict[str, list[Path]]:
    cache = Path(ctx.spec.cache_dir)
    report.note("task data")
    files = task_files(spec.tasks, cache, fetcher)
    write_source(ctx.out / "tasks", {**files, **own}, _tasks_root(spec), words, given_words)
    ctx.publish("tasks", ctx.out / "tasks", splits=len(files), words=len(words))
    return files


def _checked_words(ctx: StageContext, train: list[Shard], given_words: Path | None, report: _Reporter) -> list[str]:
    """The frequent words of the text. Raises StageError when a task that the run trains on cannot draw from them."""
    report.note("word list")
    words = frequent_words(Path(s.path) for s in train)
    write_source(ctx.out / "tasks", {}, None, words, given_words)
    _require_words(ctx, TaskSource.load(ctx.out / "tasks"), len(words))
    return words


def _require_words(ctx: StageContext, source: TaskSource, words: int) -> None:
    """Raises StageError that names the tasks which have too few words; `check_tasks` warns of evaluations that may be left out."""
    starved = [use for use in ctx.spec.config.get(GENERATED, []) if not _can_be_drawn(use["task"], use["split"], source)]
    if allowed(ctx, "tasks"):
        starved = [use for use in starved if use["field"] != "chat_eval.tasks"]
    if starved:
        names = ", ".join(f"{use['task']}/{use['split']} ({use['field']})" for use in starved)
        raise StageError(
            f"the text has {words:,} words of lower-case English letters, too few for {names}",
            code="no_words",
            hint="leave these tasks out, or use text with English words",
        )


def _can_be_drawn(task: str, split: str, source: TaskSource) -> bool:
    try:
        _ = named(task, split, source, size=1)[0]
    except StageError:
        return False
    return True


def _given_words(ctx: StageContext, fetcher: Fetcher) -> Path | None:
    """The file of data.words, if a task of the run draws from it."""
    given = ctx.spec.config
    return word_list(given[WORD_LIST], Path(ctx.spec.cache_dir), fetcher) if WORD_LIST in given else None


def _tasks_root(spec: DataSpec) -> Path | None:
    """The user's folder of task data, if that is where they are."""
    return path_of(spec.tasks).resolve() if spec.tasks and not is_url(spec.tasks) else None


def _publish_core(ctx: StageContext, spec: DataSpec, fetcher: Fetcher) -> Path | None:
    root = core_bundle(spec.core, Path(ctx.spec.cache_dir), fetcher)
    if root:
        check_core(ctx, root)
    directory = ctx.out / "core"
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "core.json", {"root": str(root) if root else None})
    ctx.publish("core", directory)
    return root


@dataclass
class _Reporter:
    """Emits the progress and the warnings of many threads. Events are written one at a time, and not too often."""

    ctx: StageContext
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _started: float = field(default_factory=time.monotonic)
    _last: tuple[float, int, int, str] = (0.0, -1, 0, "shard")

    def received(self, count: int) -> None:
        with self._lock:
            self.bytes += count

    def progress(self, done: int, total: int, unit: str) -> None:
        """Emit progress if the last event is old enough or everything is done."""
        with self._lock:
            now = time.monotonic()
            at, *last = self._last
            if (now - at < _EVERY and done < total) or (last == [done, total, unit] and not self.bytes):
                return
            self._last = (now, done, total, unit)
            elapsed = now - self._started
            extra: dict[str, Any] = {"eta_s": round(elapsed * (total - done) / done, 1)} if done else {}
            if self.bytes:
                extra["note"] = f"{self.bytes / 1e6:,.0f} MB fetched, {self.bytes / 1e6 / max(elapsed, 1e-3):,.1f} MB/s"
            self.ctx.events.emit("progress", done=done, total=total, unit=unit, **extra)

    def note(self, text: str) -> None:
        """Emit what is being done after the last shard."""
        with self._lock:
            _, done, total, unit = self._last
            self.ctx.events.emit("progress", done=done, total=total, unit=unit, note=text)

    def warn(self, message: str) -> None:
        with self._lock:
            self.ctx.events.emit("warning", code="fetch_retry", message=message)
