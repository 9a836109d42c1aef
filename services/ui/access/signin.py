"""Signing in with an API key, and out again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from client.client import Client
from client.errors import ApiError, ClientError
from services.ui.access.sessions import Sessions, Visitor


class Credentials(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]


def router(sessions: Sessions, api_url: str) -> APIRouter:
    routes = APIRouter()

    @routes.post("/signin", status_code=204)
    async def sign_in(request: Request, credentials: Credentials) -> Response:
        """Answers with the cookie. 403 for a key that the control API does not accept, 502 while that does not answer."""
        try:
            visitor = await run_in_threadpool(_visitor, api_url, credentials.key)
        except ApiError as err:
            wrong = err.status in (401, 403)
            text = "This key is unknown, expired or revoked." if wrong else str(err)
            return JSONResponse({"detail": text}, 403 if wrong else 502)
        except ClientError as err:
            return JSONResponse({"detail": str(err)}, 502)
        response = Response(status_code=204)
        sessions.sign_in(request, response, visitor)
        return response

    @routes.post("/signout", status_code=204)
    async def sign_out(request: Request) -> Response:
        response = Response(status_code=204)
        sessions.sign_out(request, response)
        return response

    return routes


def _visitor(api_url: str, key: str) -> Visitor:
    own = Client(api_url, key).own_key()
    return Visitor(key, own.id, own.name, own.role, own.project)
