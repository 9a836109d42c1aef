"""What every request does that makes a run: submit, fork and extend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request, Response

from controlplane.runs import KeyReused
from controlplane.schemas import RunView
from services.api.problems import ProblemError


@contextmanager
def once() -> Iterator[None]:
    """Refuse an Idempotency-Key that was used for another request."""
    try:
        yield
    except KeyReused as err:
        raise ProblemError("idempotency-key-reused", str(err), [("header Idempotency-Key", str(err))]) from err


def answer(request: Request, response: Response, run: RunView, *, created: bool) -> RunView:
    """Note the run for the audit trail and begin its trace, wake the dispatcher, and answer 201; 200 if an earlier request made the run."""
    request.state.made = run.id
    if created:
        request.app.state.tracing.submitted(run.id)
    request.app.state.dispatcher.wake()
    response.headers["Location"] = f"/v1/runs/{run.id}"
    response.status_code = 201 if created else 200
    return run
