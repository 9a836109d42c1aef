"""The two REST APIs that the dashboard is a client of."""

from __future__ import annotations

from dataclasses import dataclass

from client.client import Client
from client.inference import Inference
from client.settings import Settings


@dataclass(frozen=True, slots=True)
class Platform:
    """Shared by all visitors; both clients may be used from many threads."""

    api: Client
    inference: Inference
    inference_url: str


def connect(settings: Settings) -> Platform:
    """Nothing is asked of either service yet: the dashboard starts without them and says when they are away."""
    return Platform(
        Client(settings.api_url, settings.api_key),
        Inference(settings.inference_url, settings.api_key),
        settings.inference_url,
    )
