"""A typed client of the platform's two HTTP APIs. Knows nothing but HTTP."""

from client.client import Client
from client.errors import ApiError, ClientError, FieldError, Unreachable
from client.inference import Inference

__all__ = ["ApiError", "Client", "ClientError", "FieldError", "Inference", "Unreachable"]
