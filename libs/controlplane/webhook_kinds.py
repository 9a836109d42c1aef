"""What a webhook may ask for, and the states of a delivery. Standard library only."""

from __future__ import annotations

from enum import StrEnum

PING = "ping"  # kind of a delivery that a user asked for to try a webhook


class EventKind(StrEnum):
    """The kinds of event that a webhook may ask for. Metrics, samples, progress and log lines are too many to be delivered."""

    RUN_SUBMITTED = "run_submitted"
    RUN_RELEASED = "run_released"
    RUN_STATUS = "run_status"
    RUN_CHANGED = "run_changed"
    RUN_FORKED = "run_forked"
    RUN_DELETED = "run_deleted"
    STAGE_STATUS = "stage_status"
    STAGE_TAKEN_OVER = "stage_taken_over"
    BUDGET_WARNING = "budget_warning"
    BUDGET_SPENT = "budget_spent"
    SWEEP_COMPARED = "sweep_compared"
    CHECKPOINT = "checkpoint"
    CHECKPOINT_DELETED = "checkpoint_deleted"
    PROMOTED = "promoted"
    DEMOTED = "demoted"
    ARTIFACT = "artifact"
    EVAL = "eval"
    WARNING = "warning"
    ERROR = "error"
    LINE_QUARANTINED = "line_quarantined"
    METRICS_MISSING = "metrics_missing"
    WEBHOOK_OFF = "webhook_off"


class Format(StrEnum):
    """The form of the body. json: `{type, timestamp, data}`. slack: `{text}`, as Slack's incoming webhooks take it."""

    JSON = "json"
    SLACK = "slack"


class DeliveryStatus(StrEnum):
    """PENDING: it will be tried, perhaps again. DELIVERED: the receiver answered 2xx. FAILED: it is not tried any more."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
