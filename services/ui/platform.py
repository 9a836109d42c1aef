"""Clients of the two REST APIs that the dashboard shows."""

from __future__ import annotations

from dataclasses import dataclass

from client.client import Client
from client.inference import Inference
from client.settings import Settings


@dataclass(frozen=True, slots=True)
class Platform:
    """The clients are shared by all visitors. Both are thread-safe."""

    api: Client
    inference: Inference
    inference_url: str


def connect(settings: Settings) -> Platform:
    """Make the clients without a request: the dashboard starts before the services and says when they are down."""
    return Platform(
        Client(settings.api_url, settings.api_key),
        Inference(settings.inference_url, settings.api_key),
        settings.inference_url,
    )
