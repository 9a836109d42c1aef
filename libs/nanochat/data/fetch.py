"""Fetch files over HTTP. A file appears only when it is complete and verified.

A broken transfer is resumed where it ended, by Range with If-Range (RFC 9110). Before the next try, the fetcher waits as long
as the server's Retry-After header says, or else twice as long as before.
"""

from __future__ import annotations

import contextlib
import email.utils
import fcntl
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from nanochat.contract.causes import DISK_FULL, code_of
from nanochat.contract.contract import Exit, StageError, sha256_file, write_json

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')


@dataclass(frozen=True, slots=True)
class Policy:
    """How often to try and how long to wait. All times are in seconds."""

    attempts: int = 6  # consecutive tries that brought no new byte
    timeout: float = 15.0  # without any byte; also the longest delay before a stop request is noticed
    backoff: float = 1.0  # before the second try; doubles with every further try
    longest_wait: float = 120.0


class Stopped(Exception):
    """The run was asked to stop. The bytes that have arrived are kept for the next attempt."""


class _Retry(Exception):
    """This try failed, but the next one may succeed. `wait` is the delay that the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


@dataclass(slots=True)
class Fetcher:
    """Fetches files into a cache that all runs on this machine share. Safe to use from many threads.

    Calls `received(count)` with the number of bytes of every chunk, `warn(message)` before every retry, and `stopped()`
    between chunks and while it waits.
    """

    policy: Policy = field(default_factory=Policy)
    received: Callable[[int], None] = lambda _count: None
    stopped: Callable[[], bool] = lambda: False
    warn: Callable[[str], None] = lambda _message: None
    _client: httpx.Client = field(init=False)
    _halt: threading.Event = field(init=False, default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._client = httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(self.policy.timeout),
            headers={"Accept-Encoding": "identity"},
            limits=httpx.Limits(max_connections=None),
        )

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_error: object) -> None:
        self.halt()
        self._client.close()

    def halt(self) -> None:
        """Make every fetch in progress raise `Stopped` soon."""
        self._halt.set()

    def json(self, url: str, cache: Path) -> Any:
        """Fetch and parse a small JSON document, or parse the copy in `cache` if there is one. Raises as `file` does."""
        return json.loads(self.file(url, cache, check=lambda p: json.loads(p.read_bytes())).read_text(encoding="utf-8"))

    def file(self, url: str, path: Path, *, sha256: str | None = None, check: Callable[[Path], object] | None = None) -> Path:
        """Fetch `url` into `path`, unless a complete and verified file is there already. Returns `path`.

        `check(path)` may raise any exception to reject the content, such as a parquet file that cannot be read. Raises
        `Stopped`, and StageError that names the file: at once when the server refuses it ("fetch_refused") or the disk is full
        ("disk_full"), and after `policy.attempts` failed tries in a row ("fetch_failed").
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock(path):
            if _is_complete(path, sha256):
                return path
            failures = 0
            while True:
                before = _size(_part(path))
                try:
                    return self._attempt(url, path, sha256, check)
                except (_Retry, httpx.TransportError) as err:
                    failures = 1 if _size(_part(path)) > before else failures + 1
                    reason = str(err) or type(err).__name__
                    if failures >= self.policy.attempts:
                        raise StageError(
                            f"{path.name} could not be fetched from {url} in {failures} tries: {reason}",
                            code="fetch_failed",
                            hint="check the network and the address; the part that has arrived is kept and will be resumed",
                            exit_code=Exit.FAILED,
                        ) from err
                    self.warn(f"{path.name}: {reason}; trying again")
                    self._wait(err.wait if isinstance(err, _Retry) else None, failures)
                except OSError as err:
                    if code_of(err) == DISK_FULL:
                        raise StageError(
                            f"no space left on the disk of {path.parent} while fetching {path.name}",
                            code=DISK_FULL,
                            hint="free some space; the part that has arrived is kept and will be resumed",
                            exit_code=Exit.FAILED,
                        ) from err
                    raise

    # -- one try --

    def _attempt(self, url: str, path: Path, sha256: str | None, check: Callable[[Path], object] | None) -> Path:
        self._raise_if_stopped()
        part, note = _part(path), _note(path)
        headers, start = _resume_headers(part, note, url)
        with self._client.stream("GET", url, headers=headers) as response:
            start, total = _expect(response, part, start, url)
            digest = sha256 or _linked_digest(response)
            if start != total:
                write_json(note, {"url": url, "validator": _validator(response)})
                self._append(response, part, start)
        if total is not None and part.stat().st_size != total:
            raise _Retry(f"the connection ended after {part.stat().st_size:,} of {total:,} bytes")
        try:
            found = _verify(part, digest, check)
        except _Retry:
            part.unlink()
            raise
        write_json(_seal(path), {"url": url, "bytes": part.stat().st_size, "sha256": found})
        part.replace(path)
        note.unlink(missing_ok=True)
        return path

    def _append(self, response: httpx.Response, part: Path, start: int) -> None:
        # Write every chunk unbuffered, so that no byte is lost if the connection breaks or this process is killed.
        with part.open("r+b" if start else "wb", buffering=0) as file:
            file.seek(start)
            file.truncate()
            for chunk in response.iter_raw():
                self._raise_if_stopped()
                file.write(chunk)
                self.received(len(chunk))

    def _wait(self, wanted: float | None, failures: int) -> None:
        seconds = wanted if wanted is not None else self.policy.backoff * 2 ** (failures - 1) * random.uniform(0.75, 1.25)
        deadline = time.monotonic() + min(seconds, self.policy.longest_wait)
        while (left := deadline - time.monotonic()) > 0:
            self._raise_if_stopped()
            self._halt.wait(min(left, 0.2))

    def _raise_if_stopped(self) -> None:
        if self._halt.is_set() or self.stopped():
            raise Stopped

    @contextlib.contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        """Allow one fetch of a file at a time on this machine. The lock is released when the process that holds it ends."""
        with path.with_name(path.name + ".lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self._raise_if_stopped()
                    self._halt.wait(0.2)
            yield


# -- files beside the fetched one: the part that has arrived, its origin (note), and the proof that it is complete (seal) --


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".part.json")


def _seal(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def sealed(path: Path) -> dict[str, Any] | None:
    """Return {"url", "bytes", "sha256"} of a file that was fetched completely and still has that size, else None."""
    try:
        seal: dict[str, Any] = json.loads(_seal(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return seal if path.is_file() and path.stat().st_size == seal.get("bytes") else None


def _is_complete(path: Path, sha256: str | None) -> bool:
    seal = sealed(path)
    return seal is not None and sha256 in (None, seal["sha256"])


def _verify(part: Path, digest: str | None, check: Callable[[Path], object] | None) -> str:
    found = sha256_file(part)
    if digest is not None and found != digest:
        raise _Retry(f"its SHA-256 is {found}, not {digest}")
    if check is not None:
        try:
            check(part)
        except Exception as err:
            raise _Retry(f"the content is not valid: {err}") from err
    return found


# -- the protocol --


def _resume_headers(part: Path, note: Path, url: str) -> tuple[dict[str, str], int]:
    """(headers, bytes already here). Asks for the rest only if the server can tell whether its file is still the same."""
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}, 0
    size = _size(part)
    if not size or known["url"] != url or not known["validator"]:
        return {}, 0
    return {"Range": f"bytes={size}-", "If-Range": known["validator"]}, size


def _expect(response: httpx.Response, part: Path, start: int, url: str) -> tuple[int, int | None]:
    """(offset at which the body begins, size of the whole file or None). Raises _Retry or StageError for any other answer."""
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", ""))
        if match is None or int(match[1]) != start:
            part.unlink(missing_ok=True)
            raise _Retry("the server sent a different range from the one requested")
        return start, None if match[2] == "*" else int(match[2])
    if response.status_code == 200:
        length = response.headers.get("content-length")
        return 0, int(length) if length is not None else None
    if response.status_code == 416:
        if response.headers.get("content-range") == f"bytes */{start}":
            return start, start  # the whole file had arrived before, but was not renamed
        part.unlink(missing_ok=True)
        raise _Retry("the server's file is shorter than the part that had arrived; starting over")
    if response.status_code in _TRANSIENT:
        raise _Retry(f"HTTP {response.status_code}", _retry_after(response))
    raise StageError(
        f"{url} cannot be fetched: HTTP {response.status_code} {response.reason_phrase}",
        code="fetch_refused",
        hint="check the base URL, the file's number and whether the server wants credentials",
    )


def _validator(response: httpx.Response) -> str | None:
    """The value for If-Range: a strong ETag, else Last-Modified (RFC 9110, 13.1.5)."""
    etag: str | None = response.headers.get("etag")
    if etag and not etag.startswith("W/"):
        return etag
    modified: str | None = response.headers.get("last-modified")
    return modified


def _linked_digest(response: httpx.Response) -> str | None:
    """The SHA-256 that the Hugging Face hub sends in `x-linked-etag` when it redirects to the store of a large file."""
    for step in response.history:
        if match := _SHA256.fullmatch(step.headers.get("x-linked-etag", "")):
            return match[1]
    return None


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    if value.isdigit():
        return float(value)
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
