"""Whose key a request has: one of the service's own, or one that the control API knows as a key of the same project."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from client.client import Client
from client.errors import ApiError as Refused
from client.errors import ClientError
from services.inference.errors import ApiError

PREFIX = "nc_"  # of every key that the control API makes: it is not asked about others
KNOWN_S = 15.0  # how long an answer holds, and so how long a revoked key still talks
KEPT = 1024  # answers
AT_ONCE = 8  # questions
ANSWER_S = 3.0  # a control API that hangs must not hold up an answer for longer
RETRY_AFTER_S = 5


class Callers:
    """`own` are the keys of the settings. Without any, everybody may call."""

    def __init__(self, own: tuple[str, ...], api_url: str | None):
        self._own, self._api_url = own, api_url
        self._project: str | None = None  # of the first own key, whose models are served
        self._answers: OrderedDict[str, tuple[bool, float]] = OrderedDict()  # by digest: admitted, and when that was asked
        self._asking = ThreadPoolExecutor(AT_ONCE, "callers")  # its own, so that questions that hang hold up nothing else

    async def admits(self, key: str) -> bool:
        """Whether the key may call. Raises ApiError 503 while nobody can tell. The comparison takes constant time."""
        if not self._own or sum(secrets.compare_digest(key.encode(), own.encode()) for own in self._own):
            return True
        if self._api_url is None or not key.startswith(PREFIX) or not (key.isascii() and key.isprintable()):
            return False
        digest = hashlib.sha256(key.encode()).hexdigest()
        admitted, since = self._answers.get(digest, (False, float("-inf")))
        if time.monotonic() - since < KNOWN_S:
            return admitted
        try:
            asked = asyncio.get_running_loop().run_in_executor(self._asking, self._ask, self._api_url, key)
            admitted = await asyncio.wait_for(asked, ANSWER_S)
        except (ClientError, TimeoutError) as err:
            if not admitted:  # whoever could call goes on while the control API is away
                message = "The control API does not answer, so this key cannot be checked. Try again."
                raise ApiError(503, message, code="key_not_checked", retry_after_s=RETRY_AFTER_S) from err
        self._answers[digest] = admitted, time.monotonic()
        self._answers.move_to_end(digest)
        if len(self._answers) > KEPT:
            self._answers.popitem(last=False)
        return admitted

    def _ask(self, api_url: str, key: str) -> bool:
        """Whether the key is valid and of the project whose models are served. Raises ClientError if there is no answer."""
        if self._project is None:
            self._project = _project(api_url, self._own[0])
        try:
            return _project(api_url, key) == self._project
        except Refused as err:
            if err.status in (401, 403):
                return False
            raise


def _project(api_url: str, key: str) -> str:
    with closing(Client(api_url, key, tries=1)) as client:
        return client.own_key().project
