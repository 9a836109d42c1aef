"""A typed client of the platform's two HTTP APIs, and the `nanochat` command. Imports no other part of the platform."""

from client.client import Client
from client.errors import ApiError, ClientError, FieldError, Unreachable
from client.inference import Inference

__all__ = ["ApiError", "Client", "ClientError", "FieldError", "Inference", "Unreachable"]
