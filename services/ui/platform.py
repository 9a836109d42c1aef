"""Clients of the two REST APIs that the dashboard shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from client.client import Client
from client.inference import Inference

VISITORS = 256  # whose connections are kept open


@dataclass(frozen=True, slots=True)
class Platform:
    """Both clients are thread-safe."""

    api: Client
    inference: Inference
    inference_url: str


class Platforms:
    """Makes the clients without a request: the dashboard starts before the services and says when they are down."""

    def __init__(self, api_url: str, inference_url: str):
        self.api_url, self.inference_url = api_url, inference_url
        self.nobody = self._of(None)  # may ask for the probes only
        self.of = lru_cache(VISITORS)(self._of)

    def _of(self, secret: str | None) -> Platform:
        return Platform(Client(self.api_url, secret), Inference(self.inference_url, secret), self.inference_url)
