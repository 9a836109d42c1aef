"""Lists the available models, verifies them against their manifests, and loads and unloads them.

A thread of its own loads models, so that requests continue meanwhile. A request keeps the model it started with: an unloaded
model stays in memory until its last request ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass

import torch
from structlog.contextvars import bind_contextvars

from client.errors import ClientError
from nanochat.contract.contract import StageError, verify
from nanochat.distributed import autodetect, native_dtype
from nanochat.engine import Engine
from nanochat.engine.runner import narrow
from nanochat.tokenizer import Tokenizer
from nanochat.train.checkpoint import load_model
from services.inference.engine_thread import EngineThread
from services.inference.errors import ApiError
from services.inference.metrics import Metrics
from services.inference.source import Entry, Source

log = logging.getLogger(__name__)

DEFAULT = "default"
RETRY_FAILED_S = 30.0  # a checkpoint that failed to load may still be on its way to a shared file system


@dataclass(frozen=True, slots=True)
class Loaded:
    entry: Entry
    engine: Engine
    tokenizer: Tokenizer
    context: int  # most tokens of prompt and answer together


class Registry:
    """The models of `source`. At most `max_loaded` are in memory. The newest one is loaded without a request for it."""

    def __init__(self, source: Source, *, device: str | None, max_loaded: int, engines: EngineThread, metrics: Metrics):
        self._source, self._max_loaded, self._engines, self._metrics = source, max_loaded, engines, metrics
        self._device = device or autodetect()
        self._entries: dict[str, Entry] = {}
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()  # least recently used first
        self._loading: dict[str, asyncio.Task[Loaded]] = {}
        self._failed: dict[str, float] = {}  # id -> time of the last failure
        self._default: str | None = None
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")

    @property
    def device(self) -> str:
        return self._device

    @property
    def ready(self) -> bool:
        return self._default is not None

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
        """Read the source once. If the newest model is not the default yet, load it and make it the default."""
        found = await asyncio.to_thread(self._source)
        self._entries = {e.id: e for e in found}
        for gone in [i for i in self._loaded if i not in self._entries]:
            self._drop(gone)
        if self._default not in self._entries:
            self._default = next(reversed(self._loaded), None)
        for entry in found:
            if entry.id == self._default:
                return
            if time.monotonic() - self._failed.get(entry.id, -RETRY_FAILED_S) < RETRY_FAILED_S:
                continue
            try:
                await self._load(entry)
            except ApiError:
                continue  # already logged; try the next newest
            self._default = entry.id
            return

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
            model_id = self._default
        entry = self._entries.get(model_id)
        if entry is None:
            raise unknown_model(model_id)
        return await self._load(entry)

    def close(self) -> None:
        for task in self._loading.values():
            task.cancel()
        self._loader.shutdown(wait=False, cancel_futures=True)

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
            loop = asyncio.get_running_loop()
            loaded = await loop.run_in_executor(self._loader, copy_context().run, load, entry, self._device)
        except StageError as err:
            self._failed[entry.id] = time.monotonic()
            log.error("model %s cannot be loaded: %s. %s", entry.id, err, err.hint)
            raise ApiError(
                503, f"The model {entry.id!r} cannot be loaded: {err}.", param="model", code="model_load_failed"
            ) from err
        finally:
            self._loading.pop(entry.id, None)
        self._failed.pop(entry.id, None)
        self._loaded[entry.id] = loaded
        self._engines.load(entry.id, loaded.engine)
        self._metrics.loaded.labels(entry.id, entry.stage, str(entry.step)).set(1)
        while len(self._loaded) > self._max_loaded:
            others = [i for i in self._loaded if i != entry.id]
            self._drop(next((i for i in others if i != self._default), others[0]))
        return loaded

    def _drop(self, model_id: str) -> None:
        entry = self._loaded.pop(model_id).entry
        self._engines.unload(model_id)
        self._metrics.loaded.remove(model_id, entry.stage, str(entry.step))
        log.info("unloaded model %s", model_id)


def unknown_model(model_id: str) -> ApiError:
    return ApiError(
        404,
        f"The model {model_id!r} does not exist. GET /v1/models lists the available models.",
        param="model",
        code="model_not_found",
    )


def load(entry: Entry, device: str) -> Loaded:
    """Verify both artifacts against their digests, then load them. Raises StageError naming the wrong file."""
    started = time.monotonic()
    tokenizer = Tokenizer.load(verify(entry.tokenizer))
    model, meta = load_model(verify(entry.model), device)
    made_for = meta.get("tokenizer_sha256")
    if made_for and made_for != entry.tokenizer.sha256:
        raise StageError(
            f"checkpoint {entry.model.path} was trained with another tokenizer than {entry.tokenizer.path}",
            code="config_mismatch",
            hint="give the tokenizer of the same run",
        )
    narrow(model, native_dtype(torch.device(device))).eval()
    log.info("loaded model %s on %s in %.1f s", entry.id, device, time.monotonic() - started)
    return Loaded(entry, Engine(model, tokenizer), tokenizer, int(model.config.sequence_len))
