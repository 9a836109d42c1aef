"""Reading server-sent events from a response, with httpx-sse."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

NotAStream = SSEError  # a httpx.TransportError


def events(response: httpx.Response) -> Iterator[ServerSentEvent]:
    """The events of an open response. An event's `id` is the last one that the stream named.

    Raises httpx.TransportError when the connection is lost, and NotAStream, which is one, when the response is not `text/event-stream`.
    """
    # The standard (WHATWG HTML, section 9.2.6) drops an event without data. httpx-sse 0.4.3 yields one after each keep-alive
    # comment, as soon as the stream has named an id.
    return (event for event in EventSource(response).iter_sse() if event.data)
