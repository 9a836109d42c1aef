"""The sweeps of the control API: `client.sweeps.submit({"recipe": "tiny", "depths": [2, 4]})`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import httpx

from client.answers import part, read
from client.errors import Unreachable
from client.sweep_models import Sweep, SweepCurves, SweepPage, SweepPlan
from client.transport import Transport

CONNECT_S = 5.0
MAKE_S = 300.0  # 256 runs in one transaction: 49 s on two cores that 16 processes share
READ_S = 60.0  # for the curves of a sweep of 256 runs: 8 s there


class Sweeps:
    """Every method raises ApiError if the API refuses and Unreachable if it does not answer."""

    def __init__(self, http: Transport):
        self._http = http

    def submit(self, body: Mapping[str, Any], idempotency_key: str | None = None) -> Sweep:
        """Start a sweep: a recipe, overrides, and one of `grid`, `random`, `depths` and `ablate`; docs/recipes.md has all fields."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return read(Sweep, self._send("/v1/sweeps", body, headers))

    def plan(self, body: Mapping[str, Any]) -> SweepPlan:
        """The runs, hours and dollars of the sweep that `submit` would start."""
        return read(SweepPlan, self._send("/v1/sweeps/plan", body, {}))

    def page(self, limit: int = 20, cursor: str | None = None, *, archived: bool = False) -> SweepPage:
        """Sweeps, newest first."""
        return read(SweepPage, self._http.get("/v1/sweeps", limit=limit, cursor=cursor, archived=archived))

    def get(self, sweep: str, metric: str | None = None, stage: str | None = None) -> Sweep:
        """A sweep, by id or name, with the table of its runs."""
        return read(Sweep, self._http.get(_path(sweep), metric=metric, stage=stage))

    def csv(self, sweep: str, metric: str | None = None, stage: str | None = None) -> str:
        """The table of a sweep's runs as CSV."""
        return self._csv(_path(sweep), metric=metric, stage=stage)

    def curves(self, sweep: str, metric: str | None = None, stage: str | None = None, max_points: int = 200) -> SweepCurves:
        """The metric of each run against tokens and GPU hours."""
        path = f"{_path(sweep)}/curves"
        return read(SweepCurves, self._http.get(path, metric=metric, stage=stage, max_points=max_points))

    def curves_csv(self, sweep: str, metric: str | None = None, stage: str | None = None, max_points: int = 200) -> str:
        """The same, one row for each point."""
        return self._csv(f"{_path(sweep)}/curves", metric=metric, stage=stage, max_points=max_points)

    def pause(self, sweep: str) -> Sweep:
        return read(Sweep, self._http.post(f"{_path(sweep)}/pause", repeatable=True))

    def resume(self, sweep: str) -> Sweep:
        return read(Sweep, self._http.post(f"{_path(sweep)}/resume", repeatable=True))

    def cancel(self, sweep: str, *, now: bool = False) -> Sweep:
        """Cancel all unfinished runs for good."""
        return read(Sweep, self._http.post(f"{_path(sweep)}/cancel", {"mode": "now" if now else "graceful"}))

    def edit(
        self, sweep: str, *, name: str | None = None, max_parallel: int | None = None, archived: bool | None = None
    ) -> Sweep:
        """Change a sweep; None leaves a thing as it is. Its runs are archived with it."""
        body = {"name": name, "max_parallel": max_parallel, "archived": archived}
        return read(Sweep, self._http.patch(_path(sweep), body))

    def delete(self, sweep: str) -> None:
        """Delete a finished sweep with its runs and their checkpoints for good."""
        self._http.request("DELETE", _path(sweep), repeatable=False)

    def _send(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
        timeout = httpx.Timeout(MAKE_S, connect=CONNECT_S)
        return self._http.request("POST", path, json=dict(body), headers=headers, timeout=timeout, repeatable=True)

    def _csv(self, path: str, **params: Any) -> str:
        given = {key: value for key, value in params.items() if value is not None}
        headers = {"Accept": "text/csv"}
        try:
            with self._http.stream("GET", path, read_timeout_s=READ_S, headers=headers, params=given) as response:
                response.read()
                return response.text
        except httpx.TransportError as err:
            raise Unreachable(self._http.base_url, err) from err


def _path(sweep: str) -> str:
    return f"/v1/sweeps/{part(sweep)}"
