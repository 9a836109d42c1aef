"""Throw away calls for stages that wait for nobody, before they reach the pool.

Each call that does reach it takes a fresh process, which costs about a second, and the broker may hold thousands of doubled ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.utils.log import get_logger
from celery.worker import strategy
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from controlplane.db import SessionFactory
from controlplane.lifecycle import StageStatus
from controlplane.models import Stage

log = logging.getLogger(__name__)

_celery = get_logger("celery.worker.strategy")
Handler = Callable[..., Any]


def only_for_waiting_stages(app: Celery, task_name: str, factory: SessionFactory) -> None:
    """Make the worker look at the ledger before it takes a call of this task. If the ledger does not answer, the call goes on."""

    def make(task: Any, app: Celery, consumer: Any, **options: Any) -> Handler:
        handle: Handler = strategy.default(task, app, consumer, **options)

        def look_first(message: Any, body: Any, ack: Handler, reject: Handler, callbacks: Any, **more: Any) -> Any:
            try:
                stage_id = int(message.payload[0][0])
                wanted = _is_waiting(factory, stage_id)
            except (SQLAlchemyError, LookupError, TypeError, ValueError):
                wanted = True
            if wanted:
                return handle(message, body, ack, reject, callbacks, **more)
            log.info("threw away a call for stage %d, which does not wait for a worker", stage_id)
            return ack(_celery, consumer.connection_errors)

        return look_first

    app.tasks[task_name].start_strategy = lambda app, consumer, **options: make(app.tasks[task_name], app, consumer, **options)


def _is_waiting(factory: SessionFactory, stage_id: int) -> bool:
    with factory.begin() as session:
        return session.scalar(select(Stage.status).where(Stage.id == stage_id)) is StageStatus.QUEUED
