"""Traces as a local OTLP receiver gets them: a span per request, and one trace per run over API, broker and worker."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services import tracing
from tests.api.server import serving
from tests.waiting import until
from tests.worker.platform import Platform

pytest.importorskip("opentelemetry.sdk")  # the extra `otel`

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Receiver:
    """What a collector would store: the spans in the order in which they came."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.spans: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                    service = next(a.value.string_value for a in part.resource.attributes if a.key == "service.name")
                    for span in (span for scope in part.scope_spans for span in scope.spans):
                        receiver.spans.append(
                            {
                                "service": service,
                                "name": span.name,
                                "trace": span.trace_id.hex(),
                                "id": span.span_id.hex(),
                                "parent": span.parent_span_id.hex(),
                                "links": [link.trace_id.hex() for link in span.links],
                                **{a.key: a.value.string_value or a.value.int_value for a in span.attributes},
                            }
                        )
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of_run(self, run: str) -> dict[str, dict[str, Any]]:
        return {span["name"]: span for span in self.spans if span.get("nanochat.run") == run}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    made = Receiver()
    monkeypatch.setenv(tracing.ENDPOINT, made.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # ms between two exports
    yield made
    made.close()


def test_one_trace_follows_a_run_from_its_submission_to_its_attempts(
    receiver: Receiver, database_url: str, redis_url: str, home: Path
) -> None:
    platform = Platform(database_url, redis_url, home)
    try:
        platform.start_worker("cpu", "w")
        with serving(database_url, redis_url, home) as api:
            body = {"recipe": "tiny", "overrides": {"data.source": {"kind": "pydocs"}}}
            answer = api.http.post("/v1/runs", json=body, headers={"traceparent": TRACEPARENT})
            assert answer.status_code == 201, answer.text
            run = answer.json()["id"]
            until(lambda: "dispatch" in receiver.of_run(run), "the dispatch", 60)
            until(lambda: platform.stage(run, "data").status.is_live, "the attempt", 60)
            api.http.post(f"/v1/runs/{run}/cancel")
            until(lambda: "attempt" in receiver.of_run(run), "the end of the attempt", 120)
            assert api.http.get("/v1/runs/r_0000000000000000").status_code == 404
        # The API has sent the rest at its end.
    finally:
        platform.close()
    spans = receiver.of_run(run)
    root, dispatch, attempt = spans["run"], spans["dispatch"], spans["attempt"]
    assert len({root["trace"], dispatch["trace"], attempt["trace"]}) == 1
    assert (root["parent"], dispatch["parent"], attempt["parent"]) == ("", root["id"], root["id"])
    assert root["links"] == [TRACEPARENT.split("-")[1]]  # the trace of the client that submitted it
    assert [span["service"] for span in (root, dispatch, attempt)] == ["nanochat-api", "nanochat-api", "nanochat-worker"]
    assert (dispatch["nanochat.stage"], dispatch["nanochat.queue"]) == ("data", "cpu")
    assert (attempt["nanochat.stage"], attempt["nanochat.attempt"], attempt["nanochat.worker"]) == ("data", 1, "w")
    assert attempt["nanochat.stage_status"] == "CANCELLED"
    requests = [s for s in receiver.spans if s.get("nanochat.route") == "/v1/runs/{run_id}" and s["nanochat.status"] == 404]
    assert [r["name"] for r in requests] == ["GET"]
    (submission,) = [s for s in receiver.spans if s.get("nanochat.route") == "/v1/runs"]
    assert (submission["trace"], submission["parent"]) == tuple(TRACEPARENT.split("-")[1:3])


def test_a_receiver_that_is_away_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tracing.ENDPOINT, "http://127.0.0.1:1")
    made = tracing.start("test")
    with made.of_run("attempt", "r_1", stage="data") as span:
        span.note(stage_status="SUCCEEDED")
    made.close()  # the test's time limit would end a hang


def test_it_is_off_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracing.ENDPOINT, raising=False)
    assert isinstance(tracing.start("test"), tracing.Nothing)
