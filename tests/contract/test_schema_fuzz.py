"""Valid and invalid requests generated from the OpenAPI document. None crashes, and every answer is one that it declares.

With FUZZ=n each operation gets n requests, drawn anew in each run; by default it gets 12, the same ones in every run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

from services.api.__main__ import document
from services.standalone.valkey import Valkey
from tests.api.server import Api, serving

# The coverage phase tries every constraint of a body one by one. For a body with a whole recipe those are so many requests that one test
# takes minutes; tests/nanochat/config and tests/api try the bounds of a recipe.
WITH_RECIPE = "^/v1/(runs|runs/plan|runs/{run_id}/(fork|extend)|sweeps|sweeps/plan)$"
EXAMPLES = int(os.environ.get("FUZZ", "0"))
CONFIG = {
    "operations": [{"include-path-regex": WITH_RECIPE, "include-method": "POST", "phases": {"coverage": {"enabled": False}}}]
}
schema = schemathesis.openapi.from_dict(json.loads(document()), config=SchemathesisConfig.from_dict(CONFIG))
# GET /v1/runs/plan is read as a run with the id "plan", which is not a valid id: the answer is 422, but two checks expect 405.
# The third check expects every valid request to succeed. No schema can say which cursors exist, or which batches divide.
SKIPPED = CHECKS.get_by_names(["unsupported_method", "allow_header_conformance", "positive_data_acceptance"])


@pytest.fixture(scope="module")
def api(module_database_url: str, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serving(module_database_url, valkey.url, tmp_path_factory.mktemp("home")) as running:
        yield running


@schema.parametrize()
@settings(
    max_examples=EXAMPLES or 12,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_requests_made_from_the_schema(api: Api, case: schemathesis.Case) -> None:
    key = {"Authorization": f"Bearer {api.key}"}
    case.headers.update(key)  # so that a drawn request without a key, which is sent with one, does not pass for an invalid one
    case.call_and_validate(base_url=api.url, headers=key, timeout=20, excluded_checks=SKIPPED)
