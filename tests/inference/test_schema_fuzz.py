"""Requests generated from the service's OpenAPI document. None crashes, and every answer is one that the document declares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS

from nanochat.contract.contract import Artifact
from services.inference.app import create_app
from services.inference.settings import Settings
from services.inference.source import Entry, fixed
from tests.inference.server import Server, serving


def nothing() -> list[Entry]:
    return []


app = create_app(Settings.model_validate({"api_url": "http://unused"}), nothing)
schema = schemathesis.openapi.from_dict(app.openapi())
# A schema cannot say which models, tokens or combinations of parameters exist, so a valid request may be refused. HEAD is
# answered wherever GET is, which two checks do not expect.
SKIPPED = CHECKS.get_by_names(["positive_data_acceptance", "unsupported_method", "allow_header_conformance"])


@pytest.fixture(scope="module")
def small(small_artifact: Artifact, tokenizer_artifact: Artifact) -> Iterator[Server]:
    with serving(fixed(small_artifact.dir, tokenizer_artifact.dir)) as running:
        running.wait_until_ready()
        yield running


@schema.parametrize()
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_requests_made_from_the_schema(small: Server, case: schemathesis.Case) -> None:
    case.call_and_validate(
        base_url=small.url, headers={"Authorization": f"Bearer {small.key}"}, timeout=30, excluded_checks=SKIPPED
    )
