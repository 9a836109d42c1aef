"""Wake-up calls for workers. The stage's row is the truth; a message that is lost is sent again by the dispatcher."""

from __future__ import annotations

from celery import Celery

TASK = "nanochat.run_stage"
KEY_PREFIX = "nanoctl:"


class Publisher:
    """`publisher(stage_id, queue)` sends one message, or raises within seconds when the broker does not answer."""

    def __init__(self, redis_url: str):
        self._celery = Celery("nanochat", broker=redis_url, set_as_current=False)
        self._celery.conf.update(
            task_ignore_result=True,
            task_serializer="json",
            broker_connection_timeout=2.0,
            broker_transport_options={
                "global_keyprefix": KEY_PREFIX,
                "socket_connect_timeout": 2.0,
                "socket_timeout": 5.0,
                # Without a bound kombu would try to connect for ever, inside the dispatcher's tick.
                "max_retries": 1,
                "interval_start": 0.0,
                "interval_step": 0.1,
                "interval_max": 0.1,
            },
        )

    def __call__(self, stage_id: int, queue: str) -> None:
        self._celery.send_task(TASK, args=[stage_id], queue=queue, retry=False, ignore_result=True)

    def ping(self) -> bool:
        """True when the broker answers."""
        try:
            with self._celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=2)
        except Exception:
            return False
        return True

    def close(self) -> None:
        self._celery.close()
