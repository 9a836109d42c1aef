"""The OpenAPI document: it is current, described, declares all errors, and the client can read every answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from client import (
    checkpoint_models,
    key_models,
    leaderboard_models,
    machine_models,
    models,
    plan_models,
    recipe_models,
    sweep_models,
    webhooks,
)
from services.api.__main__ import document
from services.api.problems import KINDS, MEDIA_TYPE

COMMITTED = Path(__file__).parents[2] / "services" / "api" / "openapi.json"
SCHEMA: dict[str, Any] = json.loads(document())
OPEN = {"/health", "/ready", "/metrics"}
OPERATIONS = {
    f"{method.upper()} {path}": operation for path, methods in SCHEMA["paths"].items() for method, operation in methods.items()
}


def test_the_committed_document_is_current() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == document(), (
        "run: python -m services.api openapi > services/api/openapi.json"
    )


def test_it_is_openapi_3_1_and_has_exactly_these_endpoints() -> None:
    assert SCHEMA["openapi"].startswith("3.1")
    assert set(OPERATIONS) == {
        "POST /v1/runs",
        "POST /v1/runs/plan",
        "GET /v1/runs",
        "GET /v1/runs/{run_id}",
        "POST /v1/runs/{run_id}/pause",
        "POST /v1/runs/{run_id}/resume",
        "POST /v1/runs/{run_id}/cancel",
        "POST /v1/runs/{run_id}/retry",
        "POST /v1/runs/{run_id}/fork",
        "POST /v1/runs/{run_id}/extend",
        "PATCH /v1/runs/{run_id}",
        "DELETE /v1/runs/{run_id}",
        "POST /v1/checkpoints/{checkpoint_id}/demote",
        "POST /v1/checkpoints/{checkpoint_id}/pin",
        "POST /v1/checkpoints/{checkpoint_id}/unpin",
        "DELETE /v1/checkpoints/{checkpoint_id}",
        "GET /v1/runs/{run_id}/metrics",
        "GET /v1/runs/{run_id}/hardware",
        "GET /v1/runs/{run_id}/events",
        "GET /v1/runs/{run_id}/logs",
        "GET /v1/runs/{run_id}/checkpoints",
        "GET /v1/runs/{run_id}/report",
        "GET /v1/runs/{run_id}/report.md",
        "GET /v1/runs/{run_id}/report.html",
        "POST /v1/checkpoints/{checkpoint_id}/promote",
        "GET /v1/catalog",
        "GET /v1/recipes",
        "GET /v1/recipes/schema",
        "GET /v1/recipes/{name}",
        "GET /v1/models",
        "GET /v1/workers",
        "GET /v1/queue",
        "GET /v1/runs/{run_id}/comparison",
        "PATCH /v1/runs/{run_id}/scheduling",
        "PUT /v1/workers/{worker_id}/drain",
        "DELETE /v1/workers/{worker_id}/drain",
        "POST /v1/gc",
        "GET /v1/runs/{run_id}/lineage",
        "GET /v1/checkpoints/{checkpoint_id}/files",
        "GET /v1/checkpoints/{checkpoint_id}/files/{file}",
        "GET /health",
        "GET /ready",
        "GET /metrics",
        "GET /v1/key",
        "GET /v1/leaderboard",
        "POST /v1/keys",
        "GET /v1/keys",
        "PATCH /v1/keys/{key_id}",
        "DELETE /v1/keys/{key_id}",
        "GET /v1/audit",
        "POST /v1/sweeps",
        "POST /v1/sweeps/plan",
        "GET /v1/sweeps",
        "GET /v1/sweeps/{sweep_id}",
        "GET /v1/sweeps/{sweep_id}/curves",
        "POST /v1/sweeps/{sweep_id}/pause",
        "POST /v1/sweeps/{sweep_id}/resume",
        "POST /v1/sweeps/{sweep_id}/cancel",
        "PATCH /v1/sweeps/{sweep_id}",
        "DELETE /v1/sweeps/{sweep_id}",
        "POST /v1/webhooks",
        "GET /v1/webhooks",
        "GET /v1/webhooks/{webhook_id}",
        "PATCH /v1/webhooks/{webhook_id}",
        "DELETE /v1/webhooks/{webhook_id}",
        "POST /v1/webhooks/{webhook_id}/ping",
        "POST /v1/webhooks/{webhook_id}/rotate",
        "GET /v1/webhooks/{webhook_id}/deliveries",
        "GET /v1/webhooks/{webhook_id}/deliveries/{delivery_id}",
        "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
    }


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n.split()[1] not in OPEN])
def test_every_operation_needs_a_key_and_declares_its_errors(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["security"] == [{"HTTPBearer": []}]
    errors = {status: answer for status, answer in operation["responses"].items() if int(status) >= 400}
    assert {"401", "429", "500", "503"} <= set(errors)
    if "{run_id}" in name or "{sweep_id}" in name or "{checkpoint_id}" in name or "{webhook_id}" in name or "{name}" in name:
        assert {"404", "422"} <= set(errors)
    if "requestBody" in operation:
        assert {"400", "413", "422"} <= set(errors)
    for answer in errors.values():
        assert answer["content"] == {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def test_every_reference_resolves_and_the_framework_s_own_error_shape_is_gone() -> None:
    schemas = SCHEMA["components"]["schemas"]
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)
    references = {line.split('"')[3] for line in document().splitlines() if '"$ref"' in line}
    assert {r.removeprefix("#/components/schemas/") for r in references} <= set(schemas)


def test_every_schema_field_operation_and_parameter_has_a_description() -> None:
    schemas = SCHEMA["components"]["schemas"]
    described: dict[str, dict[str, Any]] = {name: s for name, s in schemas.items() if s}  # `JsonValue` is anything: {}
    described |= {f"{name}.{field}": s for name in schemas for field, s in schemas[name].get("properties", {}).items()}
    described |= OPERATIONS
    described |= {f"{name} {p['name']}": p for name, operation in OPERATIONS.items() for p in operation.get("parameters", [])}
    assert [name for name, part in described.items() if not part.get("description", "").strip()] == []


def test_every_kind_of_problem_has_an_error_status_and_a_title() -> None:
    for name, kind in KINDS.items():
        assert name == name.lower()
        assert 400 <= kind.status <= 599
        assert kind.title[0].isupper()


# Name of a schema -> the client's model that reads it.
PAIRS: dict[str, type[BaseModel]] = {
    "RunView": models.Run,
    "RunSummary": models.RunSummary,
    "RunFigures": models.RunFigures,
    "RunPage": models.RunPage,
    "StageView": models.Stage,
    "AttemptView": models.Attempt,
    "ProgressView": models.Progress,
    "ArtifactView": models.ArtifactRef,
    "CurrentStage": models.CurrentStage,
    "SeriesView": models.MetricSeries,
    "PointView": models.MetricPoint,
    "GapView": models.MetricGap,
    "EventView": models.Event,
    "EventPage": models.EventPage,
    "LogView": models.LogLine,
    "LogPage": models.LogPage,
    "CheckpointView": checkpoint_models.Checkpoint,
    "GcView": checkpoint_models.Garbage,
    "GcItem": checkpoint_models.GarbageItem,
    "LineageView": checkpoint_models.Lineage,
    "LineageNode": checkpoint_models.LineageNode,
    "LineageEdge": checkpoint_models.LineageEdge,
    "ModelView": checkpoint_models.Model,
    "ContentView": checkpoint_models.Located,
    "WorkerView": machine_models.Worker,
    "HeldView": machine_models.HeldStage,
    "GpuView": machine_models.GpuState,
    "DiskView": machine_models.DiskState,
    "DeviceView": machine_models.DeviceSeries,
    "FigureView": machine_models.Figure,
    "OwnKeyView": key_models.OwnKey,
    "KeyView": key_models.Key,
    "NewKeyView": key_models.NewKey,
    "AuditView": key_models.AuditEntry,
    "AuditPage": key_models.AuditPage,
    "RecipeView": recipe_models.RecipeInfo,
    "RecipeSchemaView": recipe_models.RecipeSchema,
    "RecipeGroup": recipe_models.RecipeGroup,
    "RecipeField": recipe_models.RecipeField,
    "CatalogView": models.Catalog,
    "StageInfoView": models.StageInfo,
    "MetricInfoView": models.MetricInfo,
    "WaitingView": models.Waiting,
    "QueuedView": models.Queued,
    "ComparisonView": plan_models.Comparison,
    "ComparedStage": plan_models.ComparedStage,
    "BudgetView": models.Budget,
    "RunPlan": plan_models.Plan,
    "PlannedStage": plan_models.PlannedStage,
    "Plan": plan_models.Figures,
    "StagePlan": plan_models.StageFigures,
    "SweepSummary": sweep_models.SweepSummary,
    "SweepPage": sweep_models.SweepPage,
    "SweepView": sweep_models.Sweep,
    "SweepRunView": sweep_models.SweepRun,
    "SweepCurvesView": sweep_models.SweepCurves,
    "SweepSeriesView": sweep_models.SweepSeries,
    "SweepPointView": sweep_models.SweepPoint,
    "SweepPlanView": sweep_models.SweepPlan,
    "PlannedRunView": sweep_models.PlannedRun,
    "LeaderboardView": leaderboard_models.Leaderboard,
    "LeaderboardRow": leaderboard_models.LeaderboardRow,
    "WebhookView": webhooks.Webhook,
    "NewWebhookView": webhooks.NewWebhook,
    "WebhookPage": webhooks.WebhookPage,
    "DeliveryView": webhooks.Delivery,
    "DeliveryPage": webhooks.DeliveryPage,
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_client_can_read_what_the_api_promises(name: str) -> None:
    promised = SCHEMA["components"]["schemas"][name]
    fields = PAIRS[name].model_fields
    assert set(fields) <= set(promised["properties"]), "the client reads a field that the API does not have"
    needed = {field for field, info in fields.items() if info.is_required()}
    assert needed <= set(promised.get("required", [])), "the client requires a field that the API may leave out"
    for field, info in fields.items():
        if _nullable(promised["properties"][field]):
            assert type(None) in getattr(info.annotation, "__args__", ()), f"{field} may be null"


def _nullable(schema: dict[str, Any]) -> bool:
    return {"type": "null"} in schema.get("anyOf", [])


def test_every_schema_of_an_answer_has_a_model_in_the_client() -> None:
    own = {name for name in SCHEMA["components"]["schemas"] if name.endswith(("View", "Page", "Summary"))}
    assert own - set(PAIRS) <= {
        "MetricsView",
        "HardwareView",
        "ReportView",
        "FileView",
        "FileListView",
    }  # these the client unwraps
