"""Wake-up calls for workers. The stage's row in the database is what counts: the dispatcher sends a lost message again."""

from __future__ import annotations

from celery import Celery

TASK = "nanochat.run_stage"
KEY_PREFIX = "nanoctl:"


class Publisher:
    """`publisher(stage_id, queue)` sends one message. It raises within seconds if the broker does not answer."""

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
                # Without a limit kombu would retry for ever and block the dispatcher's tick.
                "max_retries": 1,
                "interval_start": 0.0,
                "interval_step": 0.1,
                "interval_max": 0.1,
            },
        )

    def __call__(self, stage_id: int, queue: str) -> None:
        self._celery.send_task(TASK, args=[stage_id], queue=queue, retry=False, ignore_result=True)

    def ping(self) -> bool:
        """Whether the broker answers."""
        try:
            with self._celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=2)
        except Exception:
            return False
        return True

    def waiting(self, queue: str) -> int:
        """Number of wake-up calls that no worker has taken yet. Raises if the broker does not answer."""
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=2)
            return int(connection.default_channel.client.llen(queue))

    def close(self) -> None:
        self._celery.close()
