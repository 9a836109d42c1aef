"""Sends deliveries: an event loop in a thread, with a bound on the time and on the number of tries under way.

The host name is resolved once for each try, every address is checked, and the connection goes to the address that was checked,
so a second, different answer of the name server has no effect. No redirect is followed, no proxy is used, no cookie is kept. Of
the answer only the status line and the headers are read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx

from controlplane.deliveries import Order, Outcome
from services.api.webhooks.addresses import BadUrl, Network, Target, check, parse
from services.api.webhooks.signing import KeyChanged, Secrets

MOST = 32  # tries under way
MOST_CHECKS = 4  # under way: each keeps a thread of the API waiting for a name server
TIMEOUT_S = 15.0  # of one try, from the resolution of the name to the headers of the answer
RESOLVE_TIMEOUT_S = CONNECT_TIMEOUT_S = 5.0
ADDRESSES_TRIED = 4
LONGEST_ERROR = 300

T = TypeVar("T")
Resolve = Callable[[str, int], Awaitable[list[str]]]


class Busy(Exception):
    """Too many URLs are being checked."""


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order in which to try them. Raises OSError, UnicodeError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Sender:
    """Use `start` and `stop`. `networks` are the private ones that the operator allows."""

    def __init__(
        self,
        secrets: Secrets,
        networks: Iterable[Network] = (),
        *,
        resolve: Resolve = resolve,
        timeout_s: float = TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ):
        self._secrets, self._networks = secrets, tuple(networks)
        self._resolve, self._timeout_s = resolve, timeout_s
        self._checks = threading.BoundedSemaphore(MOST_CHECKS)
        self._tls = tls or httpx.create_ssl_context()
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(MOST, thread_name_prefix="resolver"))
        self._thread = threading.Thread(target=self._loop.run_forever, name="webhook-sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End all tries at once. Those that are cut off are sent again later, perhaps a second time."""
        if self._thread.is_alive():
            self._run(self._cancel()).result(timeout=10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)

    def send(self, order: Order) -> Future[Outcome]:
        """Try a delivery. The future never has an exception, unless `stop` cancels it."""
        return self._run(self._try(order))

    def check(self, url: str) -> None:
        """Resolve the URL's host and check that a webhook may reach it. Raises BadUrl, and Busy."""
        target = parse(url)
        if not self._checks.acquire(blocking=False):
            raise Busy
        try:
            self._run(self._addresses(target)).result(timeout=RESOLVE_TIMEOUT_S)
        except TimeoutError:
            raise BadUrl("names a host that was not resolved in time; try again") from None
        finally:
            self._checks.release()

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _addresses(self, target: Target) -> list[str]:
        """All of the host's addresses, if they may be reached. Raises BadUrl."""
        try:
            found = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError):
            raise BadUrl("names a host that cannot be resolved; check the spelling") from None
        check(target, found, self._networks)
        return found

    async def _try(self, order: Order) -> Outcome:
        try:
            async with asyncio.timeout(self._timeout_s):
                target = parse(order.url)
                return await self._post(order, target, await self._addresses(target))
        except BadUrl as err:
            return Outcome(None, f"the URL {err}")
        except KeyChanged:
            return Outcome(None, "the file keys/webhook.key is not the one that made this webhook's secret; rotate the secret")
        except TimeoutError:
            return Outcome(None, f"no answer within {self._timeout_s:g} s")
        except (httpx.ConnectError, httpx.ConnectTimeout) as err:
            return Outcome(None, f"no connection: {_printable(str(err))}"[:LONGEST_ERROR])
        except Exception as err:  # whatever a receiver sends must not end the loop; the message may contain what it sent
            return Outcome(None, f"the answer could not be read: {type(err).__name__}")

    async def _post(self, order: Order, target: Target, addresses: list[str]) -> Outcome:
        tried = addresses[:ADDRESSES_TRIED]
        for address in tried[:-1]:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._post_to(order, target, address)
        return await self._post_to(order, target, tried[-1])

    async def _post_to(self, order: Order, target: Target, address: str) -> Outcome:
        headers = {
            "Host": target.url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "User-Agent": "nanochat-webhooks",
            **self._secrets.headers(order, datetime.now(UTC)),
        }
        extensions = {"sni_hostname": target.host} if target.is_encrypted else {}
        limits = httpx.Timeout(self._timeout_s, connect=min(CONNECT_TIMEOUT_S, self._timeout_s))
        # A client for each try: a pool would share a connection between two host names that have one address.
        async with (
            httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=limits) as client,
            client.stream(
                "POST",
                target.url.copy_with(host=address),
                content=order.body.encode(),
                headers=headers,
                extensions=extensions,
                follow_redirects=False,
            ) as answer,
        ):
            return _outcome(answer)

    async def _cancel(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _outcome(answer: httpx.Response) -> Outcome:
    if answer.is_success:
        return Outcome(answer.status_code, "")
    error = f"the receiver answered {answer.status_code}"
    if answer.is_redirect or answer.has_redirect_location:
        error += "; redirects are not followed: change the URL"
    wait = answer.headers.get("retry-after", "")
    return Outcome(answer.status_code, error, float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 8 else None)
