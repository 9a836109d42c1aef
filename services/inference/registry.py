"""Lists the available models, verifies them against their manifests, and loads and unloads them.

The engine processes load a model beside the live ones and warm it up, so that requests continue meanwhile. A request keeps the
model it started with: an unloaded model stays in memory until its last request ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from structlog.contextvars import bind_contextvars

from client.errors import ClientError
from nanochat.contract.contract import StageError, verify
from nanochat.tokenizer import Tokenizer
from services.inference.engines.fleet import Fleet
from services.inference.engines.request import LOST, ModelNotLoaded
from services.inference.engines.wire import Load
from services.inference.errors import ApiError
from services.inference.metrics import Metrics
from services.inference.source import Entry, Source

log = logging.getLogger(__name__)

DEFAULT = "default"
RETRY_FAILED_S = 30.0  # a checkpoint that failed to load may still be on its way to a shared file system
RETRY_LOST_S = 600.0  # one that took the engine process with it, and with that the requests of other models


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Loaded:
    """A model in memory. It stays there while anybody, such as a request, holds this object."""

    entry: Entry
    tokenizer: Tokenizer
    context: int  # most tokens of prompt and answer together


class Registry:
    """The models of `source`. At most `max_loaded` are in memory. The newest one is loaded without a request for it."""

    def __init__(self, source: Source, *, default: str | None, max_loaded: int, fleet: Fleet, metrics: Metrics):
        self._source, self._max_loaded, self._fleet, self._metrics = source, max_loaded, fleet, metrics
        self._entries: dict[str, Entry] = {}
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()  # least recently used first
        self._loading: dict[str, asyncio.Task[Loaded]] = {}
        self._retry_at: dict[str, float] = {}  # models that could not be loaded
        self._pinned = default
        self._default: str | None = None

    @property
    def ready(self) -> bool:
        """Whether requests without a model name are answered."""
        return self._default is not None and (self._fleet.serves(self._default) or self._default not in self._loaded)

    @property
    def default(self) -> str | None:
        """Id of the model that answers requests without a model name."""
        return self._default

    def context(self, model_id: str) -> int | None:
        """Most tokens of prompt and answer together. None while the model is not in memory."""
        loaded = self._loaded.get(model_id)
        return loaded.context if loaded else None

    def entries(self) -> list[Entry]:
        """Newest first."""
        return list(self._entries.values())

    def is_loaded(self, model_id: str) -> bool:
        return model_id in self._loaded

    async def watch(self, every_s: float) -> None:
        """Look for new models until cancelled. While the control API is down, the loaded models keep answering."""
        while True:
            try:
                await self.refresh()
            except ClientError as err:
                log.warning("the list of models could not be updated: %s", err)
            except Exception:
                log.exception("the list of models could not be updated")
            await asyncio.sleep(every_s)

    async def refresh(self) -> None:
        """Read the source once, and load the model that should be the default.

        The default is the pinned model if it is available, otherwise the newest one that can be loaded. The old one stays the
        default until the new one is warm on all replicas.
        """
        found = await asyncio.to_thread(self._source)
        self._entries = {e.id: e for e in found}
        await self._choose_default(sorted(found, key=lambda entry: entry.id != self._pinned))
        for gone in [i for i in self._loaded if i not in self._entries]:
            self._drop(gone)

    async def _choose_default(self, candidates: Sequence[Entry]) -> None:
        for entry in candidates:
            if entry.id == self._default:
                return
            if time.monotonic() < self._retry_at.get(entry.id, 0):
                continue
            try:
                await self._load(entry)
            except ApiError:
                continue  # already logged; try the next
            log.info("the default model is now %s", entry.id)
            self._default = entry.id
            return
        self._default = None

    async def get(self, model_id: str | None) -> Loaded:
        """The model of this id or the default, loaded if needed. Raises ApiError: 404 unknown, 503 none yet or cannot be loaded."""
        if model_id is None or model_id == DEFAULT:
            if self._default is None:
                raise ApiError(
                    503,
                    "No model is loaded yet. The chat model of a run is loaded when its sft stage has succeeded.",
                    code="model_not_ready",
                    retry_after_s=5,
                )
            if (loaded := self._loaded.get(self._default)) is not None:  # also one that is not promoted any more
                self._loaded.move_to_end(self._default)
                return loaded
            model_id = self._default
        entry = self._entries.get(model_id)
        if entry is None:
            raise unknown_model(model_id)
        return await self._load(entry)

    def close(self) -> None:
        for task in self._loading.values():
            task.cancel()

    async def _load(self, entry: Entry) -> Loaded:
        if (loaded := self._loaded.get(entry.id)) is not None:
            self._loaded.move_to_end(entry.id)
            return loaded
        # Requests for the same model share one load. If one of them disconnects, the load continues for the others.
        task = self._loading.get(entry.id)
        if task is None:
            task = self._loading[entry.id] = asyncio.create_task(self._load_now(entry))
        return await asyncio.shield(task)

    async def _load_now(self, entry: Entry) -> Loaded:
        if entry.run_id:  # this task ends with the loading, and the ids with it
            bind_contextvars(run=entry.run_id, stage=entry.stage)
        try:
            loaded = await self._load_everywhere(entry)
        except (StageError, ModelNotLoaded) as err:
            self._retry_at[entry.id] = time.monotonic() + (
                RETRY_LOST_S if err.code == LOST and self._loaded else RETRY_FAILED_S
            )
            log.error("model %s cannot be loaded: %s. %s", entry.id, err, err.hint)
            raise ApiError(
                503, f"The model {entry.id!r} cannot be loaded: {err}.", param="model", code="model_load_failed"
            ) from err
        finally:
            self._loading.pop(entry.id, None)
        self._retry_at.pop(entry.id, None)
        self._loaded[entry.id] = loaded
        self._metrics.loaded.labels(entry.id, entry.stage, str(entry.step)).set(1)
        while len(self._loaded) > self._max_loaded:
            others = [i for i in self._loaded if i != entry.id]
            self._drop(next((i for i in others if i != self._default), others[0]))
        return loaded

    async def _load_everywhere(self, entry: Entry) -> Loaded:
        tokenizer = await asyncio.to_thread(lambda: Tokenizer.load(verify(entry.tokenizer)))
        context = await self._fleet.load(Load(entry.id, entry.model, entry.tokenizer))
        loaded, loop = Loaded(entry, tokenizer, context), asyncio.get_running_loop()
        weakref.finalize(loaded, _unload, loop, self._fleet, entry.id).atexit = False
        return loaded

    def _drop(self, model_id: str) -> None:
        entry = self._loaded.pop(model_id).entry
        self._metrics.loaded.remove(model_id, entry.stage, str(entry.step))
        log.info("model %s is unloaded when its last request ends", model_id)


def _unload(loop: asyncio.AbstractEventLoop, fleet: Fleet, model_id: str) -> None:
    """The last holder of a model may have let go of it on any thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(fleet.unload, model_id)


def unknown_model(model_id: str) -> ApiError:
    return ApiError(
        404,
        f"The model {model_id!r} does not exist. GET /v1/models lists the available models.",
        param="model",
        code="model_not_found",
    )
