"""HTTP with a key, sensible timeouts, and retries where a repeat cannot do harm."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from client.errors import ApiError, Unreachable, from_response

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
TRIES = 4
RETRIED = frozenset({502, 503, 504})


class Transport:
    """One server. Thread-safe, as httpx.Client is."""

    def __init__(self, base_url: str, api_key: str | None = None, *, timeout: httpx.Timeout = TIMEOUT, tries: int = TRIES):
        self.base_url, self._tries = base_url.rstrip("/"), tries
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=self.base_url, headers=headers, timeout=timeout)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        return self.request("GET", path, params={k: v for k, v in params.items() if v is not None}, repeatable=True)

    def post(self, path: str, json: Any = None, *, headers: Mapping[str, str] | None = None, repeatable: bool = False) -> Any:
        return self.request("POST", path, json=json, headers=headers, repeatable=repeatable)

    def request(self, method: str, path: str, *, repeatable: bool, **kwargs: Any) -> Any:
        """The decoded JSON body. A repeatable request is sent up to `tries` times, with growing, jittered pauses.

        Raises ApiError for an answer of 400 or more and Unreachable when none comes.
        """
        for attempt in range(1, self._tries + 1):
            last = attempt == self._tries or not repeatable
            try:
                response = self._http.request(method, path, **kwargs)
            except httpx.TransportError as err:
                if last:
                    raise Unreachable(self.base_url, err) from err
            else:
                if response.status_code not in RETRIED or last:
                    return _body(response)
            time.sleep(0.1 * 2**attempt * random.uniform(0.5, 1.0))
        raise AssertionError("unreachable")

    @contextmanager
    def stream(
        self, method: str, path: str, *, read_timeout_s: float, headers: Mapping[str, str] | None = None, **kwargs: Any
    ) -> Iterator[httpx.Response]:
        """An open response of status 200, whose reads give up after `read_timeout_s` of silence.

        Raises ApiError; httpx.TransportError goes through, since only the caller knows where to resume.
        """
        timeout = httpx.Timeout(TIMEOUT.connect, read=read_timeout_s)
        with self._http.stream(method, path, headers=headers, timeout=timeout, **kwargs) as response:
            if response.is_error:
                response.read()
                raise from_response(response)
            yield response


def _body(response: httpx.Response) -> Any:
    if response.is_error:
        raise from_response(response)
    try:
        return response.json()
    except ValueError as err:
        raise ApiError(
            response.status_code, "Not JSON", f"{response.url} answered something else; is it the right port?"
        ) from err
