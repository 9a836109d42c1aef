"""Secrets and signatures of webhooks, after Standard Webhooks (https://www.standardwebhooks.com).

No secret is stored. It is the HMAC-SHA256 of a random nonce, which the ledger has, under a key that only a file of the API has:
a copy of the database alone can sign nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime

from controlplane.deliveries import Order

PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret, which is shown once, and what the ledger keeps of it."""

    secret: str
    nonce: str
    digest: str


class KeyChanged(Exception):
    """The key file is not the one with which the webhook's secret was made."""


class Secrets:
    """Makes secrets, and signs with them. `master` is the content of the key file."""

    def __init__(self, master: str):
        self._master = master.encode()

    def new(self) -> NewSecret:
        nonce = secrets.token_hex(16)
        key = self._key(nonce)
        return NewSecret(PREFIX + base64.b64encode(key).decode(), nonce, _digest(key))

    def headers(self, order: Order, at: datetime) -> dict[str, str]:
        """The headers that sign a delivery sent at `at`. Raises KeyChanged."""
        if not hmac.compare_digest(_digest(self._key(order.nonce)), order.secret_digest):
            raise KeyChanged
        keys = [self._key(order.nonce), *([self._key(order.old_nonce)] if order.old_nonce else [])]
        timestamp = str(int(at.timestamp()))
        signed = f"{order.message_id}.{timestamp}.{order.body}".encode()
        signatures = (base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
        return {
            "webhook-id": order.message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }

    def _key(self, nonce: str) -> bytes:
        return hmac.digest(self._master, f"webhook {nonce}".encode(), "sha256")


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()
