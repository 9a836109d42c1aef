"""The signed-in visitor as a cookie: the API key, encrypted, which only this service can read.

Nothing is kept on the server, so a restart signs nobody out, and several replicas with one secret share their visitors.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from starlette.requests import HTTPConnection
from starlette.responses import Response

log = logging.getLogger(__name__)

LIFETIME_S = 30 * 86_400
FILE = "keys/session.key"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is signed in. `secret` is the API key; the other fields are what the control API said of it."""

    secret: str
    id: str
    name: str
    role: str
    project: str


class Sessions:
    """`secret` encrypts the cookies. Without it, nobody can make or read one."""

    def __init__(self, secret: str):
        # Fernet takes 32 bytes. The secret has at least as much entropy, so one hash is enough.
        self._fernet = Fernet(base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()))

    def visitor(self, connection: HTTPConnection) -> Visitor | None:
        """The visitor of a request; None if nobody is signed in, or not any more."""
        cookie = connection.cookies.get(_name(connection), "")
        try:
            return Visitor(**json.loads(self._fernet.decrypt(cookie, ttl=LIFETIME_S)))
        except (InvalidToken, ValueError, TypeError):
            return None

    def sign_in(self, connection: HTTPConnection, response: Response, visitor: Visitor) -> None:
        value = self._fernet.encrypt(json.dumps(asdict(visitor)).encode()).decode()
        response.set_cookie(
            _name(connection),
            value,
            max_age=LIFETIME_S,
            httponly=True,
            samesite="strict",
            secure=connection.url.scheme == "https",
        )

    def sign_out(self, connection: HTTPConnection, response: Response) -> None:
        response.delete_cookie(_name(connection), httponly=True, samesite="strict")


def _name(connection: HTTPConnection) -> str:
    """Cookies do not tell ports apart, so the name does: two stacks on one machine have two sign-ins."""
    return f"nanochat_session_{connection.url.port or 443}"


def secret_of(home: Path) -> str:
    """The secret in FILE under `home`, which is made if it is missing. One for this process alone if the folder is read-only."""
    path = home / FILE
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8")
    made = secrets.token_urlsafe(32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(made)
        try:
            os.link(own, path)  # fails if another process was first; its secret is used then
        except FileExistsError:
            made = path.read_text(encoding="utf-8")
        finally:
            own.unlink()
    except OSError as err:
        log.warning("%s cannot be written (%s): a restart signs everybody out; set NANOCHAT_SESSION_KEY", path, err.strerror)
    return made
