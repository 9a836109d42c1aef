"""The dashboard's probes while the services behind it are down."""

from __future__ import annotations

from fastapi.testclient import TestClient

from services.ui.access.sessions import Sessions
from services.ui.app import create_app
from services.ui.platform import Platforms

NOBODY = "http://127.0.0.1:1"


def test_it_is_alive_and_says_what_is_down() -> None:
    http = TestClient(create_app(Platforms(NOBODY, NOBODY), Sessions("s" * 40)), base_url="http://127.0.0.1")
    assert http.get("/health").json() == {"status": "ok"}
    ready = http.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "degraded", "api": "unreachable", "inference": "unreachable"}
    metrics = http.get("/metrics").text
    assert 'nanochat_service_up{service="api"} 0.0' in metrics
    assert 'nanochat_http_requests_total{method="GET",route="/ready",status="200"} 1.0' in metrics
