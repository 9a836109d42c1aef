"""Plans by hash, the queue, and budgets over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import workers
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api
from tests.api.test_bad_input import problem, rows

TINY: dict[str, Any] = {"recipe": "tiny", "overrides": {"base.num_iterations": 20}}


def test_a_run_can_follow_a_plan_by_its_hash(api: Api) -> None:
    planned = api.http.post("/v1/runs/plan", json=TINY).json()
    assert api.http.post("/v1/runs/plan", json=TINY).json()["hash"] == planned["hash"]
    run = api.http.post("/v1/runs", json=TINY | {"plan": planned["hash"]})
    assert run.status_code == 201
    assert run.json()["config"] == planned["config"]


def test_an_old_plan_is_refused_with_the_difference(api: Api) -> None:
    planned = api.http.post("/v1/runs/plan", json=TINY).json()
    other = {"recipe": "tiny", "overrides": {"base.num_iterations": 30}}
    before = rows(api)
    found = problem(api.http.post("/v1/runs", json=other | {"plan": planned["hash"]}), "plan-outdated")
    said = {e["field"]: e["message"] for e in found["errors"]}
    assert said["config.base.num_iterations"] == "was 20, is now 30"
    assert said["figures.stages.0.steps"] == "was 20, is now 30"
    assert "hash" not in said
    with api.ledger.begin() as session:
        workers.register(session, "new", queue="gpu", hostname="here", gpus=1, gpu_name="NVIDIA H100 80GB HBM3")
    found = problem(api.http.post("/v1/runs", json=TINY | {"plan": planned["hash"]}), "plan-outdated")
    with api.ledger.begin() as session:
        workers.retire(session, "new")
    said = {e["field"]: e["message"] for e in found["errors"]}
    assert said["figures.gpu"] == "was None, is now H100"
    assert rows(api) == before


def test_a_plan_keeps_its_hash_and_its_figures_when_later_runs_finish(api: Api) -> None:
    """Decision 11: what other runs take meanwhile outdates no plan. A new plan uses it."""
    work = ManualWorker(api.ledger)
    recipe = TINY | {"overrides": {"base.num_iterations": 21}}
    planned = api.http.post("/v1/runs/plan", json=recipe).json()
    assert {stage["source"] for stage in planned["figures"]["stages"]} == {"estimate"}
    made = []
    for _ in range(3):
        other = api.http.post("/v1/runs", json=recipe).json()["id"]
        made.append(other)
        for stage in ("data", "tok_train"):
            work.complete(other, stage)
    newer = api.http.post("/v1/runs/plan", json=recipe).json()
    assert newer["hash"] != planned["hash"]
    tokenizer = next(stage for stage in newer["figures"]["others"] if stage["stage"] == "tok_train")
    assert tokenizer["source"].startswith("measured here, 3 runs, since ")
    for plan in (planned, newer):  # the older plan is as good as the newer one
        run = api.http.post("/v1/runs", json=recipe | {"plan": plan["hash"]})
        assert run.status_code == 201
        made.append(run.json()["id"])
        stages = {s["stage"]: s for s in api.http.get(f"/v1/runs/{run.json()['id']}/comparison").json()["stages"]}
        measured = {stage["stage"]: stage["hours"] for stage in plan["figures"]["others"]}
        assert stages["tok_train"]["planned_hours"] == measured.get("tok_train")
    for other in made:
        api.http.post(f"/v1/runs/{other}/cancel")
    with api.ledger.begin() as session:
        for worker in ("manual-cpu", "manual-gpu"):
            workers.retire(session, worker)


def test_an_unknown_plan_is_refused(api: Api) -> None:
    found = problem(api.http.post("/v1/runs", json=TINY | {"plan": "0" * 64}), "plan-outdated")
    assert found["errors"][0]["message"] == "no plan with this hash was made here in the last 7 days"
    problem(api.http.post("/v1/runs", json=TINY | {"plan": "mine"}), "invalid-request")


def test_a_repeated_submission_is_answered_although_its_plan_is_old(api: Api) -> None:
    planned = api.http.post("/v1/runs/plan", json=TINY).json()["hash"]
    key = {"Idempotency-Key": "planned"}
    first = api.http.post("/v1/runs", json=TINY | {"plan": planned}, headers=key)
    with api.ledger.begin() as session:
        workers.register(session, "new", queue="gpu", hostname="here", gpus=1, gpu_name="NVIDIA H100 80GB HBM3")
    again = api.http.post("/v1/runs", json=TINY | {"plan": planned}, headers=key)
    with api.ledger.begin() as session:
        workers.retire(session, "new")
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


def test_the_queue_shows_turns_and_reasons(api: Api) -> None:
    low = api.http.post("/v1/runs", json=TINY).json()["id"]
    high = api.http.post("/v1/runs", json=TINY | {"priority": 50}).json()
    assert high["priority"] == 50

    def turns() -> list[str]:
        items = api.http.get("/v1/queue").json()["items"]
        assert all("no cpu worker is alive" in item["why"] for item in items)
        return [item["run_id"] for item in items if item["run_id"] in (low, high["id"])]

    from tests.waiting import until

    until(lambda: turns() == [high["id"], low], "both runs to be queued in the order of their priorities")
    changed = api.http.patch(f"/v1/runs/{low}/scheduling", json={"priority": 60}).json()
    assert changed["priority"] == 60
    assert turns() == [low, high["id"]]
    stage = api.http.get(f"/v1/runs/{high['id']}").json()["stages"][0]
    assert stage["waiting"]["position"] == 2
    for run in (low, high["id"]):
        api.http.post(f"/v1/runs/{run}/cancel")
    problem(api.http.patch(f"/v1/runs/{low}/scheduling", json={"priority": 0}), "conflict")


def test_a_budget_is_shown_and_can_be_changed(api: Api) -> None:
    run = api.http.post("/v1/runs", json=TINY | {"max_usd": 5, "max_hours": 2.5, "usd_per_hour": 3}).json()
    assert run["budget"] == {
        "max_usd": 5.0,
        "max_hours": 2.5,
        "usd_per_hour": 3.0,
        "used_usd": 0.0,
        "used_hours": 0.0,
        "used_gpu_hours": 0.0,
    }
    changed = api.http.patch(f"/v1/runs/{run['id']}/scheduling", json={"max_usd": 50}).json()["budget"]
    assert (changed["max_usd"], changed["max_hours"]) == (50.0, 2.5)


@pytest.mark.parametrize(
    ("terms", "field", "says"),
    [
        ({"max_usd": 5}, "max_usd", "give usd_per_hour"),
        ({"max_usd": 0, "usd_per_hour": 1}, "max_usd", "greater than 0"),
        ({"max_hours": -1}, "max_hours", "greater than 0"),
        ({"priority": 101}, "priority", "less than or equal to 100"),
        ({"priority": "high"}, "priority", "integer"),
    ],
)
def test_terms_without_a_meaning_are_refused(api: Api, terms: dict[str, object], field: str, says: str) -> None:
    before = rows(api)
    found = problem(api.http.post("/v1/runs", json=TINY | terms), "invalid-request")
    assert found["errors"][0]["field"] == field
    assert says in found["errors"][0]["message"]
    assert rows(api) == before


def test_the_recipe_s_fields_are_served_for_a_form(api: Api) -> None:
    found = api.http.get("/v1/recipes/schema").json()["groups"]
    fields = {field["path"]: field for group in found for field in group["fields"]}
    assert fields["model.depth"]["default"] == 20
    assert fields["base.total_batch_size"]["unit"] == "tokens"
    recipes = {recipe["name"]: recipe["changes"] for recipe in api.http.get("/v1/recipes").json()["items"]}
    assert recipes["speedrun"] == {}
    assert recipes["d26"]["model.depth"] == 26
    with api.client() as client:
        assert client.recipe_schema().groups[0].name == "general"
