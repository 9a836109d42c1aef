"""Lineage of a run: from its data and its tokenizer over every stage to each checkpoint and each score.

A node is a stage, an artifact, a checkpoint or a score. Edges lead from what was read to the stage that read it, and from a stage
to what it made. Four queries, however large the run is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane import views
from controlplane.errors import NodeNotFound, NotFound
from controlplane.models import Event, Run, Stage
from controlplane.schemas import LineageEdge, LineageNode, LineageView

VALUES_SHOWN = 3  # of a score
SHAPES = {"stage": ("[[", "]]"), "artifact": ("[(", ")]"), "checkpoint": ("([", "])"), "score": ("{{", "}}")}


def lineage(session: Session, run_id: str, *, of: str | None = None) -> LineageView:
    """The whole lineage of a run or, with the id of a node in `of`, only what that node was made from. Raises NotFound."""
    if session.get(Run, run_id) is None:
        raise NotFound(f"there is no run {run_id!r}")
    stages = list(session.scalars(select(Stage).where(Stage.run_id == run_id).order_by(Stage.position)))
    made = views.artifacts_of(session, run_id)
    scores = _scores(session, run_id)
    nodes, edges = [], []
    for stage in stages:
        nodes.append(LineageNode(id=stage.name, kind="stage", label=stage.name, status=stage.status))
        edges += [LineageEdge(source=source, target=stage.name) for source in dict.fromkeys(stage.inputs.values())]
        for artifact in made.get(stage.id, []):
            name = f"{stage.name}.{artifact.name}"
            nodes.append(LineageNode(id=name, kind="artifact", label=name, sha256=artifact.sha256, path=artifact.path))
            edges.append(LineageEdge(source=stage.name, target=name))
        for score, values in scores.get(stage.id, []):
            name = f"{stage.name}:{score}"
            nodes.append(LineageNode(id=name, kind="score", label=f"{score}: {values}"))
            edges.append(LineageEdge(source=stage.name, target=name))
    for checkpoint in views.checkpoints(session, run_id):
        score = "" if checkpoint.val_bpb is None else f", {checkpoint.val_bpb:.4f} bpb"
        label = f"{checkpoint.stage} step {checkpoint.step}{score}"
        nodes.append(
            LineageNode(id=checkpoint.id, kind="checkpoint", label=label, sha256=checkpoint.sha256, path=checkpoint.path)
        )
        edges.append(LineageEdge(source=checkpoint.stage, target=checkpoint.id))
    known = {node.id for node in nodes}
    edges = [edge for edge in edges if edge.source in known]  # an input that has not been published yet
    if of is not None:
        if of not in known:
            raise NodeNotFound(f"the lineage of run {run_id!r} has no node {of!r}")
        kept = _ancestors(of, edges)
        nodes = [node for node in nodes if node.id in kept]
        edges = [edge for edge in edges if {edge.source, edge.target} <= kept]
    return LineageView(nodes=nodes, edges=edges, mermaid=mermaid(nodes, edges))


def mermaid(nodes: list[LineageNode], edges: list[LineageEdge]) -> str:
    """The picture as text of a Mermaid flowchart, which GitHub and many editors draw."""
    return "\n".join(["flowchart LR", *_lines(nodes, edges)]) + "\n"


def _lines(nodes: list[LineageNode], edges: list[LineageEdge]) -> Iterator[str]:
    number = {node.id: f"n{i}" for i, node in enumerate(nodes)}
    for node in nodes:
        opening, closing = SHAPES[node.kind]
        label = node.label.replace('"', "#quot;")
        digest = f"<br/>{node.sha256[:12]}" if node.sha256 else ""
        yield f'  {number[node.id]}{opening}"{label}{digest}"{closing}'
    for edge in edges:
        yield f"  {number[edge.source]} --> {number[edge.target]}"


def _ancestors(node: str, edges: list[LineageEdge]) -> set[str]:
    found, waiting = {node}, [node]
    while waiting:
        target = waiting.pop()
        sources = {edge.source for edge in edges if edge.target == target} - found
        found |= sources
        waiting += sources
    return found


def _scores(session: Session, run_id: str) -> dict[int, list[tuple[str, str]]]:
    """The newest result of each evaluation as (name, values), by the id of its stage."""
    newest = func.max(Event.id).label("id")
    query = (
        select(newest)
        .where(Event.run_id == run_id, Event.kind == "eval", Event.stage_id.is_not(None))
        .group_by(Event.stage_id, Event.data["name"].astext)
        .subquery()
    )
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for event in session.scalars(select(Event).join(query, query.c.id == Event.id).order_by(Event.id)):
        if event.stage_id is not None:
            found[event.stage_id].append((str(event.data["name"]), _values(event.data.get("values"))))
    return found


def _values(values: object) -> str:
    """A few values for people; the event has all of them."""
    if not isinstance(values, Mapping):
        return _number(values)
    shown = [f"{key} {_number(value)}" for key, value in sorted(values.items())[:VALUES_SHOWN]]
    return ", ".join(shown) + (", …" if len(values) > VALUES_SHOWN else "")


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
