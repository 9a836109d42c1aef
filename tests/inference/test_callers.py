"""Which keys the service takes while the control API is there and while it is away."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from client.errors import ApiError as Refused
from client.errors import Unreachable
from services.inference import callers
from services.inference.callers import Callers
from services.inference.errors import ApiError

NOBODY = "http://127.0.0.1:1"


class Control:
    """What the control API says of keys: the project of each, or that it is unknown, unless it is away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **projects: str):
        self.projects, self.asked, self.is_away, self.now = projects, 0, False, 1000.0
        monkeypatch.setattr(callers, "_project", self._project)
        monkeypatch.setattr(callers, "time", SimpleNamespace(monotonic=lambda: self.now))

    def _project(self, api_url: str, key: str) -> str:
        self.asked += 1
        if self.is_away:
            raise Unreachable(api_url, OSError("refused"))
        if key not in self.projects:
            raise Refused(401, "Unknown key")
        return self.projects[key]


def test_keys_of_its_project_are_admitted_and_asked_about_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control(monkeypatch, nc_own="ours", nc_anna="ours", nc_bob="theirs")
    service = Callers(("nc_own",), NOBODY)

    def admits(key: str) -> bool:
        return asyncio.run(service.admits(key))

    assert [admits(key) for key in ("nc_own", "nc_anna", "nc_bob", "nc_wrong", "wrong", "", "nc_é")] == [
        True,
        True,
        *[False] * 5,
    ]
    asked = control.asked
    assert admits("nc_anna")
    assert control.asked == asked
    del control.projects["nc_anna"]
    control.now += callers.KNOWN_S
    assert not admits("nc_anna")


def test_while_the_control_api_is_away_only_who_was_known_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control(monkeypatch, nc_own="ours", nc_anna="ours")
    service = Callers(("nc_own",), NOBODY)
    assert asyncio.run(service.admits("nc_anna"))
    control.is_away = True
    control.now += callers.KNOWN_S
    assert asyncio.run(service.admits("nc_anna"))
    assert asyncio.run(service.admits("nc_own"))
    with pytest.raises(ApiError, match="cannot be checked") as refused:
        asyncio.run(service.admits("nc_carl"))
    assert refused.value.status == 503


def test_a_control_api_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    control, released = Control(monkeypatch, nc_own="ours", nc_anna="ours"), threading.Event()
    service = Callers(("nc_own",), NOBODY)
    assert asyncio.run(service.admits("nc_anna"))
    control.now += callers.KNOWN_S
    monkeypatch.setattr(callers, "ANSWER_S", 0.05)
    monkeypatch.setattr(callers, "_project", lambda api_url, key: released.wait(30) and "theirs")
    try:
        assert asyncio.run(service.admits("nc_anna"))
        with pytest.raises(ApiError, match="cannot be checked"):
            asyncio.run(service.admits("nc_carl"))
    finally:
        released.set()


def test_a_service_without_a_control_api_knows_its_own_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Callers(("nc_own",), None)
    assert asyncio.run(service.admits("nc_own"))
    assert not asyncio.run(service.admits("nc_anna"))
    assert asyncio.run(Callers((), None).admits(""))
