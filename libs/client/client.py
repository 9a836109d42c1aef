"""The control API as typed Python. Every method raises ApiError if the API refuses and Unreachable if it does not answer."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from client import sse
from client.answers import items, part, read, read_json, value
from client.checkpoint_models import Checkpoint, Garbage, Lineage, Model
from client.download import download
from client.errors import ApiError, Unreachable, Unsendable
from client.key_models import AuditPage, Key, NewKey, OwnKey
from client.leaderboard_models import Leaderboard
from client.machine_models import DeviceSeries, Worker
from client.models import Catalog, EventPage, LogLine, LogPage, MetricSeries, Queued, Run, RunGone, RunPage, RunSummary
from client.plan_models import Comparison, Plan
from client.recipe_models import RecipeInfo, RecipeSchema
from client.sweeps import Sweeps
from client.transport import PROBE_TIMEOUT_S, RETRIED, TRIES, Transport
from client.webhooks import Webhooks

Filter = str | bool | Sequence[str] | None

STREAM_SILENCE_S = 45.0  # three keep-alive periods of the server
RECONNECT_S = 1.0
RECONNECT_FOR_S = 60.0


class Client:
    """`with Client(url, key) as client: client.submit("tiny")`. Thread-safe."""

    def __init__(
        self, base_url: str, api_key: str | None = None, *, tries: int = TRIES, waits: Callable[[str], None] | None = None
    ):
        """`tries`: how often a request that is safe to repeat is sent at most, when there is no answer. `waits`: see `Transport`."""
        self._http = Transport(base_url, api_key, tries=tries, waits=waits)
        self.sweeps = Sweeps(self._http)
        self.webhooks = Webhooks(self._http)

    @property
    def base_url(self) -> str:
        return self._http.base_url

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- runs --

    def submit(
        self,
        recipe: str | Mapping[str, Any],
        overrides: Mapping[str, Any] | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
        *,
        plan: str | None = None,
        priority: int | None = None,
        max_usd: float | None = None,
        max_hours: float | None = None,
        usd_per_hour: float | None = None,
    ) -> Run:
        """Start a run. `recipe` is the name of a shipped recipe, or a whole recipe as a table.

        `plan` is the hash of a plan: ApiError 409 says in what the run would differ from it. When the budget `max_usd` or
        `max_hours` is spent, the run pauses.

        The request always carries an idempotency key (a random one by default), so that repeating it after a lost answer
        cannot start a second run.
        """
        terms = {
            "plan": plan,
            "priority": priority,
            "max_usd": max_usd,
            "max_hours": max_hours,
            "usd_per_hour": usd_per_hour,
        }
        body = _request(recipe, overrides, name) | {key: value for key, value in terms.items() if value is not None}
        return self._start("/v1/runs", body, idempotency_key)

    def plan(
        self,
        recipe: str | Mapping[str, Any],
        overrides: Mapping[str, Any] | None = None,
        *,
        gpus: int | None = None,
        gpu: str | None = None,
        gpu_memory_gib: float | None = None,
        peak_tflops: float | None = None,
        usd_per_hour: float | None = None,
    ) -> Plan:
        """Length, memory use and cost of the run that `submit` would start; starts and stores nothing.

        Plans for the API's own workers, or for `gpus` GPUs of the kind that the other arguments describe.
        """
        hardware = {
            "gpus": gpus,
            "gpu": gpu,
            "gpu_memory_gib": gpu_memory_gib,
            "peak_tflops": peak_tflops,
            "usd_per_hour": usd_per_hour,
        }
        body = _request(recipe, overrides) | {key: value for key, value in hardware.items() if value is not None}
        return read(Plan, self._http.post("/v1/runs/plan", body, repeatable=True))

    def comparison(self, run_id: str) -> Comparison:
        """The run's plan against what happened, stage by stage."""
        return read(Comparison, self._http.get(f"/v1/runs/{part(run_id)}/comparison"))

    def queue(self) -> list[Queued]:
        """The stages that wait for a worker, in the order of their turns, each with the reason why it waits."""
        return items(self._http.get("/v1/queue"), Queued)

    def schedule(
        self, run_id: str, *, priority: int | None = None, max_usd: float | None = None, max_hours: float | None = None
    ) -> Run:
        """Change a run's priority or budget; None leaves a value as it is. ApiError 409 if the run has ended."""
        given = {"priority": priority, "max_usd": max_usd, "max_hours": max_hours}
        body = {key: value for key, value in given.items() if value is not None}
        return read(Run, self._http.request("PATCH", f"/v1/runs/{part(run_id)}/scheduling", json=body, repeatable=True))

    def catalog(self) -> Catalog:
        """Every stage, metric and kind of event, with the names under which to show them."""
        return read(Catalog, self._http.get("/v1/catalog"))

    def runs(self, status: str | None = None, limit: int = 50, **filters: Filter) -> Iterator[RunSummary]:
        """Every run, newest first, fetched `limit` at a time. `filters` are parameters of GET /v1/runs, such as search or sort."""
        cursor: str | None = None
        while True:
            page = self.runs_page(status=status, limit=limit, cursor=cursor, **filters)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def runs_page(self, status: str | None = None, limit: int = 50, cursor: str | None = None, **filters: Filter) -> RunPage:
        return read(RunPage, self._http.get("/v1/runs", status=status, limit=limit, cursor=cursor, **filters))

    def follow_runs(self) -> Iterator[RunSummary | RunGone | None]:
        """Every run of the project as soon as it changes, until the connection ends.

        None comes first: what changes from now on will come, so fetch the list now. Raises httpx.TransportError when the connection
        is lost; call this again then.
        """
        headers = {"Accept": "text/event-stream"}
        with self._http.stream("GET", "/v1/runs", read_timeout_s=STREAM_SILENCE_S, headers=headers) as response:
            for message in sse.events(response):
                match message.event:
                    case "ready":
                        yield None
                    case "run":
                        yield read_json(RunSummary, message.data)
                    case "gone":
                        yield read_json(RunGone, message.data)

    def run(self, run_id: str) -> Run:
        return read(Run, self._http.get(f"/v1/runs/{part(run_id)}"))

    def pause(self, run_id: str) -> Run:
        """Pause a run: its running stage saves a checkpoint and frees its worker. ApiError 409 if the run has ended."""
        return read(Run, self._http.post(f"/v1/runs/{part(run_id)}/pause", repeatable=True))

    def resume(self, run_id: str) -> Run:
        """Resume a paused run from its last checkpoints. ApiError 409 if the run has ended."""
        return read(Run, self._http.post(f"/v1/runs/{part(run_id)}/resume", repeatable=True))

    def cancel(self, run_id: str, *, now: bool = False) -> Run:
        """Cancel a run for good: waiting stages at once, a running stage at its next step, or killed if `now`.

        ApiError 409 if the run is already finished.
        """
        mode = "now" if now else "graceful"
        return read(Run, self._http.post(f"/v1/runs/{part(run_id)}/cancel", {"mode": mode}))

    def retry(self, run_id: str, stage: str | None = None) -> Run:
        """Queue a stage that failed, or all of them. ApiError 409 if none failed."""
        return read(Run, self._http.post(f"/v1/runs/{part(run_id)}/retry", {"stage": stage}))

    def fork(
        self,
        run_id: str,
        overrides: Mapping[str, Any] | None = None,
        *,
        from_stage: str | None = None,
        from_checkpoint: str | None = None,
        name: str | None = None,
        **terms: float | None,
    ) -> Run:
        """Start a run with another one's recipe and overrides. What succeeded and does not change is not run again.

        `terms` are priority, max_usd, max_hours and usd_per_hour, as in `submit`; what is left out is as in the old run.
        """
        body = {"from_stage": from_stage, "from_checkpoint": from_checkpoint, "overrides": dict(overrides or {}), "name": name}
        return self._start(f"/v1/runs/{part(run_id)}/fork", body | terms)

    def extend(self, run_id: str, stage: str, steps: int, name: str | None = None, **terms: float | None) -> Run:
        """Start a run that trains a stage of another one for more steps, from its furthest checkpoint on. `terms`: see `fork`."""
        return self._start(f"/v1/runs/{part(run_id)}/extend", {"stage": stage, "steps": steps, "name": name} | terms)

    def _start(self, path: str, body: Any, idempotency_key: str | None = None) -> Run:
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return read(Run, self._http.post(path, body, headers=headers, repeatable=True))

    def edit(
        self,
        run_id: str,
        *,
        name: str | None = None,
        notes: str | None = None,
        labels: Sequence[str] | None = None,
        archived: bool | None = None,
    ) -> Run:
        """Change the name, notes or labels of a run, or archive it. None leaves a thing as it is."""
        body = {"name": name, "notes": notes, "labels": None if labels is None else list(labels), "archived": archived}
        return read(Run, self._http.patch(f"/v1/runs/{part(run_id)}", body))

    def delete(self, run_id: str) -> None:
        """Delete a finished run and its checkpoints for good. ApiError 409 if something still needs it."""
        self._http.request("DELETE", f"/v1/runs/{part(run_id)}", repeatable=False)

    def report(self, run_id: str) -> str:
        """The report card, as Markdown. ApiError 404 until a stage has begun."""
        return self._http.text(f"/v1/runs/{part(run_id)}/report.md", "text/markdown")

    def report_page(self, run_id: str) -> str:
        """The report card, as one HTML file. ApiError 404 until a stage has begun."""
        return self._http.text(f"/v1/runs/{part(run_id)}/report.html", "text/html")

    def report_data(self, run_id: str) -> dict[str, Any] | None:
        """The report card, as data; None if it was made before there was such a form. ApiError 404 until a stage has begun."""
        found: dict[str, Any] | None = value(self._http.get(f"/v1/runs/{part(run_id)}/report"), "report")
        return found

    # -- records of a run --

    def metrics(
        self,
        run_id: str,
        stage: str | None = None,
        keys: Sequence[str] | None = None,
        max_points: int = 500,
        *,
        from_step: int | None = None,
        to_step: int | None = None,
    ) -> list[MetricSeries]:
        """Curves of at most `max_points` buckets. Each bucket has its minimum, its maximum and its last value.

        Fewer steps are in finer buckets: those from `from_step` to `to_step`, both included. A curve without a point there is left out.
        """
        steps = {"from_step": from_step, "to_step": to_step}
        body = self._http.get(f"/v1/runs/{part(run_id)}/metrics", stage=stage, keys=keys, max_points=max_points, **steps)
        return items(body, MetricSeries, "series")

    def hardware(self, run_id: str, stage: str | None = None, max_points: int = 500) -> list[DeviceSeries]:
        """How busy the GPUs and machines of a run were, each in at most `max_points` buckets; empty without samples."""
        body = self._http.get(f"/v1/runs/{part(run_id)}/hardware", stage=stage, max_points=max_points)
        return items(body, DeviceSeries, "devices")

    def events(self, run_id: str, after: int = 0, kinds: Sequence[str] | None = None, limit: int = 500) -> EventPage:
        body = self._http.get(f"/v1/runs/{part(run_id)}/events", after=after, kinds=kinds, limit=limit)
        return read(EventPage, body)

    def logs(
        self,
        run_id: str,
        stage: str | None = None,
        attempt: int | None = None,
        after: int = 0,
        limit: int = 1000,
        *,
        tail: bool = False,
    ) -> LogPage:
        """The first `limit` lines after the id `after`, or with `tail` the last ones."""
        asked = {"stage": stage, "attempt": attempt, "after": after, "limit": limit, "tail": tail or None}
        body = self._http.get(f"/v1/runs/{part(run_id)}/logs", **asked)
        return read(LogPage, body)

    def follow_logs(
        self, run_id: str, stage: str | None = None, attempt: int | None = None, after: int = 0
    ) -> Iterator[LogLine]:
        """Every line after the id `after`, once and in order, until the run is finished.

        Reconnects when the connection is lost, for up to a minute, and resumes after the last line it gave out.
        """
        params = {k: v for k, v in {"stage": stage, "attempt": attempt}.items() if v is not None}
        lost_at: float | None = None
        while True:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            try:
                with self._http.stream(
                    "GET", f"/v1/runs/{part(run_id)}/logs", read_timeout_s=STREAM_SILENCE_S, headers=headers, params=params
                ) as response:
                    lost_at = None
                    for message in sse.events(response):
                        if message.event == "end":
                            return
                        if message.event == "gap":  # old lines that are no longer kept
                            continue
                        line = read_json(LogLine, message.data)
                        if line.id > after:
                            after = line.id
                            yield line
            except httpx.TransportError as err:
                cause: Exception = Unreachable(self.base_url, err)
            except ApiError as err:
                if err.status not in RETRIED:
                    raise
                cause = err
            else:  # closed without the event `end`: the server is shutting down
                cause = Unreachable(self.base_url, ConnectionError("the stream was closed"))
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > RECONNECT_FOR_S:
                raise cause
            time.sleep(RECONNECT_S)

    # -- checkpoints, models, recipes, workers --

    def checkpoints(self, run_id: str) -> list[Checkpoint]:
        return items(self._http.get(f"/v1/runs/{part(run_id)}/checkpoints"), Checkpoint)

    def promote(self, checkpoint_id: str) -> Checkpoint:
        """Let the inference service serve a checkpoint."""
        return read(Checkpoint, self._http.post(f"/v1/checkpoints/{part(checkpoint_id)}/promote", repeatable=True))

    def download(self, checkpoint_id: str, folder: Path) -> Path:
        """Download a checkpoint into `folder` and check its digests. After an interruption a second call continues."""
        try:
            return download(self._http, checkpoint_id, folder)
        except httpx.TransportError as err:
            raise Unreachable(self.base_url, err) from err

    def lineage(self, run_id: str, of: str | None = None) -> Lineage:
        """What everything in a run, or the node `of` alone, was made from."""
        return read(Lineage, self._http.get(f"/v1/runs/{part(run_id)}/lineage", of=of))

    def collect_garbage(self, *, dry_run: bool) -> Garbage:
        """Mark the checkpoints that nothing needs, or only list them."""
        return read(Garbage, self._http.post("/v1/gc", {"dry_run": dry_run}, repeatable=True))

    def demote(self, checkpoint_id: str) -> Checkpoint:
        """Take a promotion back."""
        return read(Checkpoint, self._http.post(f"/v1/checkpoints/{part(checkpoint_id)}/demote", repeatable=True))

    def pin(self, checkpoint_id: str, *, pinned: bool = True) -> Checkpoint:
        """Keep a checkpoint from garbage collection, or no longer."""
        action = "pin" if pinned else "unpin"
        return read(Checkpoint, self._http.post(f"/v1/checkpoints/{part(checkpoint_id)}/{action}", repeatable=True))

    def delete_checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """Delete a checkpoint. ApiError 409 with the reason if something needs it."""
        return read(Checkpoint, self._http.request("DELETE", f"/v1/checkpoints/{part(checkpoint_id)}", repeatable=False))

    def models(self) -> list[Model]:
        """Promoted checkpoints, newest first."""
        return items(self._http.get("/v1/models"), Model)

    def recipes(self) -> list[RecipeInfo]:
        return items(self._http.get("/v1/recipes"), RecipeInfo)

    def recipe_schema(self) -> RecipeSchema:
        """Every field of a recipe, with its unit, its bounds, its default and what it does."""
        return read(RecipeSchema, self._http.get("/v1/recipes/schema"))

    def recipe(self, name: str) -> RecipeInfo:
        return read(RecipeInfo, self._http.get(f"/v1/recipes/{part(name)}"))

    def leaderboard(self, sort: str = "-core", limit: int = 100, *, references: bool = True) -> Leaderboard:
        """Finished runs and published models. `sort` is a figure such as val_bpb or hours; a minus means descending."""
        return read(Leaderboard, self._http.get("/v1/leaderboard", sort=sort, limit=limit, references=references))

    def workers(self) -> list[Worker]:
        return items(self._http.get("/v1/workers"), Worker)

    def own_key(self) -> OwnKey:
        """What this client's key may do, in which project, and until when."""
        return read(OwnKey, self._http.get("/v1/key"))

    # -- keys and the audit trail, for keys of admins --

    def make_key(
        self, name: str, role: str = "operator", project: str = "default", expires_at: datetime | None = None
    ) -> NewKey:
        """Make an API key. Its secret cannot be shown again."""
        body = {"name": name, "role": role, "project": project, "expires_at": _iso(expires_at)}
        return read(NewKey, self._http.post("/v1/keys", body))

    def keys(self) -> list[Key]:
        """All keys, also revoked and expired ones, the newest first."""
        return items(self._http.get("/v1/keys"), Key)

    def expire_key(self, key_id: str, at: datetime | None) -> Key:
        """Set the time from which on a key is refused; None means never."""
        return read(Key, self._http.patch(f"/v1/keys/{part(key_id)}", {"expires_at": _iso(at)}))

    def revoke_key(self, key_id: str) -> Key:
        return read(Key, self._http.delete(f"/v1/keys/{part(key_id)}"))

    def audit(self, before: int | None = None, limit: int = 100) -> AuditPage:
        """Requests that asked for a change, newest first."""
        return read(AuditPage, self._http.get("/v1/audit", before=before, limit=limit))

    def drain(self, worker_id: str, *, hand_over: bool = False) -> Worker:
        """Let a worker take no new stages. With `hand_over` its running stages stop, and another worker continues them."""
        body = {"running": "HAND_OVER" if hand_over else "FINISH"}
        return read(Worker, self._http.request("PUT", _drain_of(worker_id), json=body, repeatable=True))

    def undrain(self, worker_id: str) -> Worker:
        """Let a worker take stages again."""
        return read(Worker, self._http.request("DELETE", _drain_of(worker_id), repeatable=True))

    def is_ready(self) -> bool:
        """Whether the API can accept runs: its database answers and has the current schema."""
        try:
            self._http.request("GET", "/ready", repeatable=False, timeout=PROBE_TIMEOUT_S)
        except (ApiError, Unreachable):
            return False
        return True


def _request(recipe: str | Mapping[str, Any], overrides: Mapping[str, Any] | None, name: str | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"recipe": recipe if isinstance(recipe, str) else dict(recipe), "overrides": dict(overrides or {})}
    try:
        json.dumps(body, allow_nan=False)
    except (TypeError, ValueError) as err:  # a date or NaN: valid TOML, but not valid JSON
        raise Unsendable(f"the recipe has a value that JSON cannot hold: {err}") from err
    return body | ({"name": name} if name is not None else {})


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _drain_of(worker_id: str) -> str:
    return f"/v1/workers/{part(worker_id)}/drain"
