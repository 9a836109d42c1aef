"""What the shell offers after Tab: names and ids that the chosen server knows. Silent and quick when there is no server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import typer
from pydantic import ValidationError

from client import contexts as known
from client.client import Client
from client.errors import ClientError
from client.patience import within
from client.settings import chosen

Offer = tuple[str, str]  # what completes the word, and a note beside it
MOST = 100
PATIENCE_S = 3.0


def _asked(offers: Callable[[Client], Iterable[Offer]]) -> Callable[[typer.Context, str], list[Offer]]:
    """A completion that asks the server. A word that has begun narrows the offers; an error offers nothing, nor does a server that
    takes longer than PATIENCE_S."""

    def completion(context: typer.Context, incomplete: str) -> list[Offer]:
        def ask() -> list[Offer]:
            found = chosen(_context_of(context))
            with Client(found.api_url, found.api_key, tries=1) as client:
                return [(word, note) for word, note in offers(client) if word.startswith(incomplete)]

        try:
            return within(PATIENCE_S, ask)
        except (ClientError, ValidationError, TimeoutError):
            return []

    return completion


def contexts(incomplete: str) -> list[Offer]:
    try:
        items = known.load().contexts.items()
    except ClientError:
        return []
    return [(name, context.api_url) for name, context in items if name.startswith(incomplete)]


def _runs(client: Client) -> Iterator[Offer]:
    items = client.runs_page(limit=MOST).items
    for run in items:
        yield run.id, f"{run.name} {run.status}"
    names = [run.name for run in items]
    for run in items:
        if names.count(run.name) == 1:
            yield run.name, f"{run.id} {run.status}"


def _checkpoints(client: Client) -> Iterator[Offer]:
    for run in client.runs_page(limit=5).items:
        for one in client.checkpoints(run.id):
            yield one.id, f"{run.name} {one.stage} step {one.step}"


def _models(client: Client) -> Iterator[Offer]:
    for model in client.models():
        yield model.id, f"{model.run_name} {model.stage} step {model.step}"


def _stages(client: Client) -> Iterator[Offer]:
    for stage in client.catalog().stages:
        yield stage.name, stage.title


def _metrics(client: Client) -> Iterator[Offer]:
    for metric in client.catalog().metrics:
        yield metric.key, metric.label


def _event_kinds(client: Client) -> Iterator[Offer]:
    yield from ((kind, "") for kind in client.catalog().event_kinds)


def _recipes(client: Client) -> Iterator[Offer]:
    for recipe in client.recipes():
        yield recipe.name, recipe.description


def _workers(client: Client) -> Iterator[Offer]:
    for worker in client.workers():
        yield worker.id, f"{worker.queue} {worker.status}"


def _keys(client: Client) -> Iterator[Offer]:
    items = client.keys()
    yield from ((key.id, f"{key.name} {key.role}") for key in items if key.revoked_at is None)


def _webhooks(client: Client) -> Iterator[Offer]:
    for hook in client.webhooks.page(limit=MOST).items:
        yield hook.id, hook.name


def _sweeps(client: Client) -> Iterator[Offer]:
    for sweep in client.sweeps.page(MOST).items:
        yield sweep.id, f"{sweep.name} {sweep.status}"


runs, checkpoints, models, stages = _asked(_runs), _asked(_checkpoints), _asked(_models), _asked(_stages)
metrics, recipes, workers, keys = _asked(_metrics), _asked(_recipes), _asked(_workers), _asked(_keys)
webhooks, sweeps, event_kinds = _asked(_webhooks), _asked(_sweeps), _asked(_event_kinds)


def _context_of(context: typer.Context) -> str | None:
    """The value of --context in the words before the one that is completed."""
    value = context.params.get("server")
    return value if isinstance(value, str) else None
