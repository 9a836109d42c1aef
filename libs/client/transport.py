"""One HTTP server: sends the key, sets timeouts, and repeats requests that are safe to repeat."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from client.answers import foreign
from client.errors import ApiError, ClientError, NoKey, Unreachable, Unsendable, from_response

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
PROBE_TIMEOUT_S = 2.0  # of a readiness probe, whose own caller waits for five seconds
TRIES = 4
GIVE_UP_S = 20.0  # no further try after so long: a server that takes connections and never answers costs one TIMEOUT, not four
NOTICE_S = 5.0  # whoever waits is told after so long
FIRST_PAUSE_S = (0.1, 0.2)  # drawn between these two; the upper bound doubles with every further try
RETRIED = frozenset({502, 503, 504})


def _last_outcome(state: RetryCallState) -> httpx.Response:
    """The response to the last try, which the caller reports like any other. If there was none, raises Unreachable."""
    assert state.outcome is not None
    response: httpx.Response = state.outcome.result()
    return response


def _retrying(tries: int) -> Retrying:
    return Retrying(
        stop=stop_after_attempt(tries) | stop_after_delay(GIVE_UP_S),
        wait=wait_random_exponential(min=FIRST_PAUSE_S[0], multiplier=FIRST_PAUSE_S[1]),
        retry=retry_if_exception_type(Unreachable) | retry_if_result(lambda response: response.status_code in RETRIED),
        retry_error_callback=_last_outcome,
    )


class Transport:
    """Thread-safe, as httpx.Client is. `tries`: how often a request that is safe to repeat is sent at most. `waits` is called,
    in a thread of its own, with the address of a server that has not answered for NOTICE_S."""

    def __init__(
        self, base_url: str, api_key: str | None = None, *, tries: int = TRIES, waits: Callable[[str], None] | None = None
    ):
        self.base_url, self._waits = base_url.rstrip("/"), waits
        self._retrying = _retrying(tries)
        if not self.base_url.startswith(("http://", "https://")):
            raise ClientError(f"{base_url!r} is not the address of a server: it has to begin with http:// or https://")
        if api_key and not (api_key.isascii() and api_key.isprintable()):  # httpx would quote the key in its error
            raise NoKey("the API key has characters that no key has; is NANOCHAT_API_KEY right?")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            self._http = httpx.Client(base_url=self.base_url, headers=headers, timeout=TIMEOUT)
        except httpx.InvalidURL as err:
            raise ClientError(f"{base_url!r} is not the address of a server: {err}") from err

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        return self.request("GET", path, params={k: v for k, v in params.items() if v is not None}, repeatable=True)

    def text(self, path: str, kind: str) -> str:
        """The body of an answer that is not JSON but of this media type. Raises ClientError for any other, such as the page of a login."""

        def send() -> httpx.Response:
            return self._send("GET", path)

        with self._noticed():
            response = self._retrying(send)
        _require_answer(response)
        found = response.headers.get("Content-Type", "no type")
        if response.status_code != 200 or not found.startswith(kind):
            raise foreign(f"{response.status_code}, {found} in place of {kind}")
        return response.text

    def post(self, path: str, json: Any = None, *, headers: Mapping[str, str] | None = None, repeatable: bool = False) -> Any:
        return self.request("POST", path, json=json, headers=headers, repeatable=repeatable)

    def patch(self, path: str, json: Any) -> Any:
        return self.request("PATCH", path, json=json, repeatable=True)

    def delete(self, path: str) -> Any:
        return self.request("DELETE", path, repeatable=True)

    def request(self, method: str, path: str, *, repeatable: bool, **kwargs: Any) -> Any:
        """The decoded JSON body. A repeatable request is sent up to `tries` times, with growing random pauses in between.

        Raises ApiError for a response of status 400 or more, and Unreachable if there is no response.
        """

        def send() -> httpx.Response:
            return self._send(method, path, **kwargs)

        with self._noticed():
            response = self._retrying(send) if repeatable else send()
        return _body(response)

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        request = self._built(method, path, **kwargs)
        try:
            return self._http.send(request)
        except httpx.TransportError as err:
            raise Unreachable(self.base_url, err) from err
        except httpx.DecodingError as err:
            raise self._garbled(err) from err

    def _built(self, method: str, path: str, **kwargs: Any) -> httpx.Request:
        try:
            return self._http.build_request(method, path, **kwargs)
        except (httpx.InvalidURL, ValueError) as err:  # NaN in the body, a header that is not ASCII, a path that is too long
            bytes_ = isinstance(err, UnicodeEncodeError) and err.encoding == "utf-8"
            why = "a text in it is not valid UTF-8" if bytes_ else str(err)
            raise Unsendable(f"this cannot be sent to {self.base_url}: {why}") from err

    def _garbled(self, err: httpx.DecodingError) -> ClientError:
        return ClientError(f"the answer of {self.base_url} cannot be read ({err}); is the port right?")

    @contextmanager
    def _noticed(self) -> Iterator[None]:
        """Until the block ends, whoever waits for it is told after a while."""
        if self._waits is None:
            yield
            return
        notice = threading.Timer(NOTICE_S, self._waits, [self.base_url])
        notice.daemon = True
        notice.start()
        try:
            yield
        finally:
            notice.cancel()

    @contextmanager
    def stream(
        self, method: str, path: str, *, read_timeout_s: float, headers: Mapping[str, str] | None = None, **kwargs: Any
    ) -> Iterator[httpx.Response]:
        """An open response. Reading from it fails after `read_timeout_s` without data.

        Raises ApiError for a response of status 400 or more, and ClientError for one that cannot be decoded. httpx.TransportError
        is not converted or retried, because only the caller knows where to resume.
        """
        timeout = httpx.Timeout(TIMEOUT.connect, read=read_timeout_s)
        request = self._built(method, path, headers=headers, timeout=timeout, **kwargs)
        with self._noticed():
            response = self._http.send(request, stream=True)
        with closing(response):
            try:
                if response.is_error:
                    response.read()
                _require_answer(response)
                yield response
            except httpx.DecodingError as err:
                raise self._garbled(err) from err


def _require_answer(response: httpx.Response) -> None:
    """Raises ApiError for a response of status 400 or more, and for one that names another address: a key is sent to no other."""
    if response.is_error:
        raise from_response(response)
    if response.has_redirect_location:
        where = response.headers["Location"]
        raise ApiError(response.status_code, "Elsewhere", f"{response.url} sends to {where}; name the server's own address")


def _body(response: httpx.Response) -> Any:
    _require_answer(response)
    try:
        return response.json()
    except (ValueError, RecursionError) as err:
        raise ApiError(
            response.status_code, "Not JSON", f"{response.url} did not answer with JSON; is the port right?"
        ) from err
