"""The pretraining text of a run, from any source, as shards that become ready in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from nanochat.config.recipe import FolderSource, HttpSource, PydocsSource
from nanochat.data import pydocs
from nanochat.data.fetch import Fetcher, Stopped, sealed
from nanochat.data.folder import Part, read_folder
from nanochat.data.overlap import Overlap
from nanochat.data.shards import Shard, check_shard, count_chars
from nanochat.data.standard import standard_shard

Progress = Callable[[int, int, str], None]  # done, total, unit


@dataclass(frozen=True, slots=True)
class Ready:
    """A shard on disk. `capped_chars` is its number of characters with each document cut at the tokenizer's `doc_cap`."""

    shard: Shard
    capped_chars: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """`train` and `val` hold, in order, a function for each shard that gets it ready; `workers` of them may run at once.

    `overlap` says how much of the validation text is trained on; None if that cannot be.
    """

    train: Sequence[Callable[[], Ready]]
    val: Sequence[Callable[[], Ready]]
    workers: int
    overlap: Overlap | None = None

    def ready(self, progress: Progress, stopped: Callable[[], bool]) -> Generator[tuple[str, Ready]]:
        """Yield ("val" or "train", shard): first the validation shards, then the train shards, in order.

        A shard is yielded as soon as it and all shards before it are ready. Raises the error of any shard that could not be
        made ready, and `Stopped` when `stopped()` returns true.
        """
        named = [("val", job) for job in self.val] + [("train", job) for job in self.train]
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="shard")
        futures: list[Future[Ready]] = [pool.submit(job) for _, job in named]
        pending = set(futures)
        handed = 0
        try:
            while handed < len(futures):
                done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()  # raise at once, although earlier shards may not be ready
                progress(len(futures) - len(pending), len(futures), "shard")
                while handed < len(futures) and futures[handed].done():
                    yield named[handed][0], futures[handed].result()
                    handed += 1
                if stopped():
                    raise Stopped
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def open_corpus(
    source: PydocsSource | FolderSource | HttpSource, cache_dir: Path, doc_cap: int, fetcher: Fetcher, progress: Progress
) -> Corpus:
    """Open the corpus of a recipe's `data.source`. Raises StageError when a folder is not usable (see `read_folder`)."""
    if isinstance(source, HttpSource):
        return _http(source, cache_dir, doc_cap, fetcher)
    if isinstance(source, FolderSource):
        return _folder(source, cache_dir, doc_cap, fetcher.stopped)
    train, val = pydocs.harvest(cache_dir, source.max_chars, lambda chars: progress(chars, source.max_chars, "char"))
    jobs = [[partial(_ready, path, None, doc_cap) for path in paths] for paths in (train, val)]
    return Corpus(jobs[0], jobs[1], os.cpu_count() or 1)


def _folder(source: FolderSource, cache_dir: Path, doc_cap: int, stopped: Callable[[], bool]) -> Corpus:
    found = read_folder(source.path, source.column)
    overlap = Overlap(lambda: standard_shard(found.val[0], cache_dir, stopped))

    def job(part: Part, see: Callable[[pa.Array], None]) -> Ready:
        return _ready(standard_shard(part, cache_dir, stopped), None, doc_cap, see)

    train = [partial(job, part, overlap.see) for part in found.train]
    val = [partial(job, part, _ignore) for part in found.val]
    return Corpus(train, val, os.cpu_count() or 1, overlap)


def _http(source: HttpSource, cache_dir: Path, doc_cap: int, fetcher: Fetcher) -> Corpus:
    base = source.base_url.rstrip("/")
    folder = cache_dir / "shards" / "".join(c if c.isalnum() else "-" for c in base.partition("://")[2])[:120]

    check = partial(check_shard, column=source.column)

    def job(index: int) -> Callable[[], Ready]:
        name = source.name.format(index=index)

        def fetch() -> Ready:
            path = fetcher.file(f"{base}/{name}", folder / name, sha256=source.sha256.get(name), check=check)
            made = standard_shard(Part((path,), "parquet", source.column), cache_dir, fetcher.stopped)
            return _ready(made, (sealed(path) or {}).get("sha256") if made == path else None, doc_cap)

        return fetch

    return Corpus([job(i) for i in range(source.train_shards)], [job(source.val_index)], source.workers)


def _ignore(_texts: pa.Array) -> None: ...


def _ready(path: Path, sha256: str | None, doc_cap: int, see: Callable[[pa.Array], None] = _ignore) -> Ready:
    chars, capped = count_chars(path, doc_cap, see)
    return Ready(Shard(str(path), path.stat().st_size, sha256, chars), capped)
