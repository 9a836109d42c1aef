"""Find what a recipe names beside its text (task data, the user's own files, the word list, the CORE bundle), or fetch it into the cache."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pyarrow.parquet as pq

from nanochat.contract.contract import StageError
from nanochat.contract.paths import path_of
from nanochat.data.core_bundle import bundle_in
from nanochat.data.fetch import Fetcher
from nanochat.tasks.catalog import CORE_CONFIG, SPLITS, Split, find_in_folder, is_url
from nanochat.tasks.chat_file import open_checked, own_path
from nanochat.tasks.source import read_word_list


def task_files(place: str | None, cache_dir: Path, fetcher: Fetcher) -> dict[str, list[Path]]:
    """Return the files of every split at `place`, by the keys of `catalog.SPLITS`; {} if `place` is None.

    `place` is a folder or the base URL of a hub. A folder may lack splits, a hub may not. Raises StageError and `Stopped`.
    """
    if place is None:
        return {}
    if is_url(place):
        return {key: _fetch_split(place.rstrip("/"), split, cache_dir / "hub", fetcher) for key, split in SPLITS.items()}
    root = path_of(place).resolve()
    if not root.is_dir():
        raise StageError(f"no folder {root}", code="folder_missing", hint="check data.tasks")
    return find_in_folder(root)


def own_files(places: Collection[str], root: Path | None, cache_dir: Path, fetcher: Fetcher) -> dict[str, list[Path]]:
    """Fetch the user's own conversations from their URLs, and check every row of these and of those on this machine.

    Returns the fetched files by their URLs. Raises StageError that names the broken lines, and `Stopped`.
    """
    fetched = {url: [_fetch_own(url, cache_dir / "own", fetcher)] for url in places if is_url(url)}
    for place in places:
        open_checked(fetched[place][0] if place in fetched else own_path(place, root))
    return fetched


def word_list(place: str | None, cache_dir: Path, fetcher: Fetcher) -> Path:
    """Return the file of data.words. Raises StageError when there is none or it is no word list, and `Stopped`."""
    if place is None:
        raise StageError("there is no word list", code="no_words", hint="set data.words, or use spelling and counting instead")
    path = _fetch_own(place, cache_dir / "words", fetcher) if is_url(place) else path_of(place).resolve()
    read_word_list(path)
    return path


def _fetch_own(url: str, cache: Path, fetcher: Fetcher) -> Path:
    name = PurePosixPath(urlsplit(url).path).name or "file"
    return fetcher.file(url, cache / _name(url) / name)


def _fetch_split(base_url: str, split: Split, cache: Path, fetcher: Fetcher) -> list[Path]:
    """Fetch the split's files from the hub's parquet export."""
    folder = cache / _name(base_url) / split.repo / split.config / split.split
    listing = f"{base_url}/api/datasets/{split.repo}/parquet/{split.config}/{split.split}"
    urls = fetcher.json(listing, folder / "listing.json")
    if not isinstance(urls, list) or not urls or not all(isinstance(u, str) for u in urls):
        raise StageError(f"{listing} does not list any parquet files", code="hub_listing", hint="check data.tasks")
    return [fetcher.file(url, folder / f"{i:04d}.parquet", check=pq.ParquetFile) for i, url in enumerate(urls)]


def core_bundle(place: str | None, cache_dir: Path, fetcher: Fetcher) -> Path | None:
    """Return the folder that holds `core.yaml`; None if `place` is None.

    `place` is a folder or the URL of a zip file. Raises StageError and `Stopped`.
    """
    if place is None:
        return None
    root = _unpacked(place, cache_dir / "core" / _name(place), fetcher) if is_url(place) else path_of(place).resolve()
    if not root.is_dir():
        raise StageError(f"no folder {root}", code="folder_missing", hint="check data.core")
    bundle = bundle_in(root)
    if bundle is None:
        raise StageError(
            f"{root} does not contain {CORE_CONFIG}", code="core_missing", hint="set data.core to the folder of a CORE bundle"
        )
    return bundle


def _unpacked(url: str, home: Path, fetcher: Fetcher) -> Path:
    """Fetch and unpack the zip file. A temporary folder is renamed at the end, so the content is there whole or not at all."""
    archive = fetcher.file(url, home / "bundle.zip", check=_check_zip)
    content = home / "content"
    if not content.is_dir():
        tmp = home / "content.tmp"
        shutil.rmtree(tmp, ignore_errors=True)
        with zipfile.ZipFile(archive) as bundle:
            bundle.extractall(tmp)  # removes absolute paths and ".." (see the manual of zipfile)
        tmp.rename(content)
    return content


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as bundle:
        bad = bundle.testzip()
    if bad is not None:
        raise ValueError(f"member {bad} is damaged")


def _name(url: str) -> str:
    return hashlib.blake2b(url.encode(), digest_size=6).hexdigest()
