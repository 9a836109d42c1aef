"""Runs over HTTP: submitting, planning, listing, getting, cancelling, and the report; also recipes, models and workers."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from controlplane import workers
from controlplane.lifecycle import Reason
from nanochat.config.recipe import names, resolve
from nanochat.planning import graph, plan
from nanochat.report import build, write
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api
from tests.nanochat.report.runs import attempt

GAUGES = ("memory_used_gib", "memory_total_gib", "power_w", "power_limit_w", "temperature_c", "activity_pct")
TINY = {"recipe": "tiny", "overrides": {"base.num_iterations": 20}}


@pytest.fixture(scope="module")
def worker(api: Api) -> ManualWorker:
    return ManualWorker(api.ledger)


def test_a_submitted_run_has_the_resolved_recipe_and_all_stages_of_the_graph(api: Api) -> None:
    response = api.http.post("/v1/runs", json=TINY | {"name": "first light"})
    assert response.status_code == 201
    run = response.json()
    assert response.headers["location"] == f"/v1/runs/{run['id']}"
    recipe = resolve("tiny", {"base.num_iterations": 20})
    assert run["config"] == recipe.model_dump(mode="json")
    assert (run["name"], run["recipe"], run["status"]) == ("first light", "tiny", "QUEUED")
    assert [s["name"] for s in run["stages"]] == [s.name for s in graph.stages(recipe)]
    again = api.http.get(f"/v1/runs/{run['id']}").json()
    assert again | {"stages": [], "detail": ""} == run | {"stages": [], "detail": ""}


def test_a_run_can_be_submitted_with_an_inline_recipe(api: Api) -> None:
    inline = {"name": "mine", "model": {"depth": 2, "seq_len": 64}, "rl": {"enabled": True}}
    run = api.http.post("/v1/runs", json={"recipe": inline, "overrides": {"base.num_iterations": 5}}).json()
    assert (run["recipe"], run["name"]) == ("mine", "mine")
    assert run["config"] == resolve(inline, {"base.num_iterations": 5}).model_dump(mode="json")
    assert [s["name"] for s in run["stages"]][-3:] == ["rl", "chat_eval_rl", "report"]


def test_a_repeated_submission_answers_with_the_first_run(api: Api) -> None:
    key = {"Idempotency-Key": "again"}
    first = api.http.post("/v1/runs", json=TINY, headers=key)
    second = api.http.post("/v1/runs", json=TINY, headers=key)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["location"] == first.headers["location"]
    without = api.http.post("/v1/runs", json=TINY)
    assert without.json()["id"] != first.json()["id"]


def test_submissions_at_the_same_time_with_one_key_make_one_run(api: Api) -> None:
    answers: list[tuple[int, str]] = []
    barrier = threading.Barrier(6)

    def submit() -> None:
        barrier.wait()
        response = api.http.post("/v1/runs", json=TINY, headers={"Idempotency-Key": "race"})
        answers.append((response.status_code, response.json()["id"]))

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in answers) == [200] * 5 + [201]
    assert len({run_id for _, run_id in answers}) == 1


def test_pages_follow_one_another_while_runs_are_being_submitted(api: Api) -> None:
    made = [api.http.post("/v1/runs", json=TINY).json()["id"] for _ in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        page = api.http.get("/v1/runs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [run["id"] for run in page["items"]]
        api.http.post("/v1/runs", json=TINY)  # newer than the first page, so it shifts no item
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    assert [run_id for run_id in seen if run_id in made] == made[::-1]


def test_runs_can_be_listed_by_status(api: Api) -> None:
    run = api.http.post("/v1/runs", json=TINY).json()
    cancelled = api.http.post(f"/v1/runs/{run['id']}/cancel").json()
    assert cancelled["status"] == "CANCELLED"
    assert {s["status"] for s in cancelled["stages"]} == {"CANCELLED"}
    page = api.http.get("/v1/runs", params={"status": "CANCELLED"}).json()
    assert run["id"] in {r["id"] for r in page["items"]}
    assert {r["status"] for r in page["items"]} == {"CANCELLED"}
    both = api.http.get("/v1/runs", params=[("status", "CANCELLED"), ("status", "QUEUED"), ("limit", "200")]).json()
    assert {r["status"] for r in both["items"]} == {"CANCELLED", "QUEUED"}


def test_a_plan_says_what_a_run_would_do_and_writes_nothing(api: Api) -> None:
    before = api.http.get("/v1/runs", params={"limit": 1}).json()["items"][0]["id"]
    answer = api.http.post("/v1/runs/plan", json={"recipe": "speedrun"}).json()
    assert answer["figures"]["params"] == 560_988_160
    assert answer["figures"]["flops_per_token"] == 3_491_758_080
    assert answer["figures"]["stages"][0] | {"stage": "base_train", "steps": 21_400} == answer["figures"]["stages"][0]
    assert answer["config"]["model"]["depth"] == 20
    assert answer["stages"][1] == {"name": "tok_train", "kind": "tok_train", "queue": "cpu", "needs": ["data.tok_shards"]}
    assert api.http.get("/v1/runs", params={"limit": 1}).json()["items"][0]["id"] == before


def test_a_plan_for_named_hardware_equals_the_library_s(api: Api) -> None:
    asked = {"gpus": 8, "gpu": "H100", "gpu_memory_gib": 40, "peak_tflops": 500, "usd_per_hour": 2}
    answer = api.http.post("/v1/runs/plan", json={"recipe": "speedrun", **asked}).json()
    figures = plan.plan(resolve("speedrun"), 8, "H100", 40, peak_tflops=500, usd_per_hour=2)
    assert answer["figures"] == figures.model_dump(mode="json")
    assert answer["figures"]["stages"][0]["device_batch_size"] == 16
    assert answer["warnings"] == plan.run_plan(resolve("speedrun"), figures).warnings
    unknown = api.http.post("/v1/runs/plan", json={"recipe": "speedrun", "gpu": "Voodoo 2"}).json()
    assert "Voodoo 2 is not in the table" in unknown["warnings"][0]


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({"gpus": 0}, ["gpus"]),
        ({"gpus": 24}, ["base.total_batch_size", "mid.total_batch_size", "sft.examples_per_step"]),
        ({"gpu": ""}, ["gpu"]),
        ({"gpu_memory_gib": -1}, ["gpu_memory_gib"]),
        ({"peak_tflops": 0}, ["peak_tflops"]),
        ({"usd_per_hour": "much"}, ["usd_per_hour"]),
    ],
)
def test_impossible_hardware_is_refused(api: Api, asked: dict[str, object], fields: list[str]) -> None:
    answer = api.http.post("/v1/runs/plan", json={"recipe": "speedrun", **asked})
    assert answer.status_code == 422
    assert [e["field"] for e in answer.json()["errors"]] == fields


def test_a_submission_cannot_name_hardware(api: Api) -> None:
    answer = api.http.post("/v1/runs", json={**TINY, "gpus": 8})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "gpus")


def test_recipes_are_listed_with_their_defaults(api: Api) -> None:
    listed = api.http.get("/v1/recipes").json()["items"]
    assert [r["name"] for r in listed] == names()
    one = api.http.get("/v1/recipes/tiny").json()
    assert one in listed
    assert one["config"] == resolve("tiny").model_dump(mode="json")


def test_a_whole_run_up_to_its_report_and_its_model(api: Api, worker: ManualWorker, tmp_path: Path) -> None:
    run_id = api.http.post("/v1/runs", json=TINY | {"name": "whole"}).json()["id"]
    missing = api.http.get(f"/v1/runs/{run_id}/report")
    assert (missing.status_code, missing.json()["type"].rpartition(":")[2]) == (404, "report-not-ready")
    (tmp_path / "report.md").write_text("# Report\n\nGrüße\n", encoding="utf-8")
    for stage in [s["name"] for s in api.http.get(f"/v1/runs/{run_id}").json()["stages"]]:
        worker.complete(run_id, stage, report=str(tmp_path))
    run = api.http.get(f"/v1/runs/{run_id}").json()
    assert run["status"] == "SUCCEEDED"
    assert {s["status"] for s in run["stages"]} == {"SUCCEEDED"}
    base = run["stages"][3]
    assert [a["name"] for a in base["artifacts"]] == ["model", "results"]
    assert (base["attempts"][0]["no"], base["attempts"][0]["status"], base["attempts"][0]["worker"]) == (
        1,
        "SUCCEEDED",
        "manual-gpu",
    )
    assert api.http.get(f"/v1/runs/{run_id}/report").json() == {"markdown": "# Report\n\nGrüße\n", "report": None}
    assert api.http.get(f"/v1/runs/{run_id}/report.md").text == "# Report\n\nGrüße\n"
    assert "<h1>whole</h1>" in api.http.get(f"/v1/runs/{run_id}/report.html").text  # of the ledger: an older report has no page
    summary = next(r for r in api.http.get("/v1/runs").json()["items"] if r["id"] == run_id)
    assert (summary["stages_done"], summary["stages_total"], summary["current"]) == (10, 10, None)

    models = [m for m in api.http.get("/v1/models").json()["items"] if m["run_id"] == run_id]
    assert [(m["stage"], m["step"], m["run_name"]) for m in models] == [("sft", 60, "whole")]
    assert models[0]["tokenizer"] == {"path": f"/artifacts/{run_id}/tok_train/tokenizer", "sha256": "ab" * 32}
    checkpoints = api.http.get(f"/v1/runs/{run_id}/checkpoints").json()["items"]
    assert {(c["stage"], c["final"], c["promoted_at"] is not None) for c in checkpoints} == {
        ("base_train", True, False),
        ("mid_train", True, False),
        ("sft", True, True),
    }
    base_model = next(c for c in checkpoints if c["stage"] == "base_train")
    promoted = api.http.post(f"/v1/checkpoints/{base_model['id']}/promote").json()
    assert promoted["promoted_at"] is not None
    assert api.http.post(f"/v1/checkpoints/{base_model['id']}/promote").json() == promoted
    assert api.http.get("/v1/models").json()["items"][0]["id"] == base_model["id"]


def test_a_failed_run_shows_the_reason_and_the_message(api: Api, worker: ManualWorker) -> None:
    run_id = api.http.post("/v1/runs", json=TINY).json()["id"]
    worker.finish(worker.claim(run_id, "data"), Reason.BAD_INPUT, "no text in /data: give a folder with parquet shards")
    run = api.http.get(f"/v1/runs/{run_id}").json()
    assert run["status"] == "FAILED"
    assert "no text in /data" in run["detail"]
    assert (run["stages"][0]["status"], run["stages"][0]["reason"]) == ("FAILED", "BAD_INPUT")


def test_the_report_of_the_last_stage_is_shown_under_the_name_of_the_run(
    api: Api, worker: ManualWorker, tmp_path: Path
) -> None:
    run_id = api.http.post("/v1/runs", json=TINY | {"name": "first"}).json()["id"]
    made = build.report(run_id, TINY, [build.card("base_train", "done", results={"params": 12_345_678})], {})
    write.all_forms(made, tmp_path)
    for stage in [s["name"] for s in api.http.get(f"/v1/runs/{run_id}").json()["stages"]]:
        worker.complete(run_id, stage, report=str(tmp_path))
    written = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert api.http.get(f"/v1/runs/{run_id}/report.md").text == written.replace(f"# Report on {run_id}", "# Report on first")
    api.http.patch(f"/v1/runs/{run_id}", json={"name": "second"})
    page = api.http.get(f"/v1/runs/{run_id}/report.html").text
    assert "<h1>second</h1>" in page
    assert "A 12.3M-parameter language model." in page
    assert api.http.get(f"/v1/runs/{run_id}/report").json()["report"]["made_at"] == made.made_at
    (tmp_path / "report.json").write_text('{"version": 99}', encoding="utf-8")  # of a later version
    assert f"<h1>{run_id}</h1>" in api.http.get(f"/v1/runs/{run_id}/report.html").text  # the page as it was made


def test_the_report_says_what_the_run_cost_by_the_ledger_and_not_by_the_clock(
    api: Api, worker: ManualWorker, tmp_path: Path
) -> None:
    run_id = api.http.post("/v1/runs", json=TINY | {"usd_per_hour": 3600}).json()["id"]
    trained = build.card("base_train", "done", results={"device": "cpu"}, started_at=1.0, finished_at=86_401.0)
    write.all_forms(build.report(run_id, TINY, [trained], {}), tmp_path)
    for stage in [s["name"] for s in api.http.get(f"/v1/runs/{run_id}").json()["stages"]]:
        worker.complete(run_id, stage, report=str(tmp_path))
    used = api.http.get(f"/v1/runs/{run_id}").json()["budget"]["used_usd"]
    report = api.http.get(f"/v1/runs/{run_id}/report").json()
    assert report["report"]["cost"] == {"gpu": "cpu", "gpus": 1, "usd_per_hour": 3600.0, "usd": pytest.approx(used)}
    assert f"At $3,600.00 an hour for 1 x cpu: ${used:,.2f}." in report["markdown"]


def test_a_run_that_failed_has_a_report_in_three_forms(api: Api, worker: ManualWorker, tmp_path: Path) -> None:
    run_id = api.http.post("/v1/runs", json=TINY | {"name": "<b>bad</b>"}).json()["id"]
    (tmp_path / "results.json").write_text('{"train_shards": 3}', encoding="utf-8")
    worker.complete(run_id, "data", results=str(tmp_path))
    made_elsewhere = attempt(tmp_path / "tok_train", 1, [(7, {"loss": 2.0})], figures={"vocab_size": 400})  # as a fork has it
    worker.complete(run_id, "tok_train", results=str(made_elsewhere / "results"))
    base = worker.claim(run_id, "base_train")
    worker.report(base, "warning", code="no_fp8", message="this device does not support fp8")
    for step, loss in enumerate([6.5, 5.5, "nan", 4.5]):
        worker.report(base, "metric", step=step, values={"loss": loss})
    partial = api.http.get(f"/v1/runs/{run_id}/report").json()["report"]
    assert (partial["state"], partial["status"]) == ("partial", "The run is RUNNING: Pretraining")
    worker.finish(base, Reason.BAD_INPUT, "the shard is damaged")

    view = api.http.get(f"/v1/runs/{run_id}/report").json()
    stages = {stage["name"]: stage for stage in view["report"]["stages"]}
    assert stages["data"]["results"] == {"train_shards": 3}
    assert (stages["base_train"]["state"], stages["base_train"]["why"]) == ("failed", "the shard is damaged")
    curve = next(c for c in stages["base_train"]["record"]["curves"] if c["key"] == "loss")
    assert (curve["steps"], curve["last"], curve["nonfinite"]) == ([0, 1, 2, 3], [6.5, 5.5, None, 4.5], [2])
    assert (stages["tok_train"]["results"], stages["tok_train"]["record"]["curves"][0]["steps"]) == ({"vocab_size": 400}, [7])
    assert [name for name, stage in stages.items() if stage["state"] == "left out"] == ["rl", "chat_eval_rl"]
    assert stages["mid_train"]["state"] == "not reached"
    assert "the shard is damaged" in view["markdown"]
    markdown = api.http.get(f"/v1/runs/{run_id}/report.md")
    assert markdown.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "no_fp8" not in markdown.text
    assert "does not support fp8" in markdown.text
    page = api.http.get(f"/v1/runs/{run_id}/report.html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<h1>&lt;b&gt;bad&lt;/b&gt;</h1>" in page.text
    assert 'aria-label="Training loss (nats per token) by step. From 6.5000 at step 0 to 4.5000 at step 3."' in page.text


def test_workers_are_listed_with_their_attempts(api: Api, worker: ManualWorker) -> None:
    run_id = api.http.post("/v1/runs", json=TINY).json()["id"]
    claim = worker.claim(run_id, "data")
    cpu = next(w for w in api.http.get("/v1/workers").json()["items"] if w["id"] == "manual-cpu")
    assert cpu["status"] == "busy"
    assert f"{run_id}/data/1" in cpu["attempts"]
    worker.report(claim, "progress", done=1, total=4, unit="shard")
    state = {
        "gpus": [{"index": 0, "name": "H100", **dict.fromkeys(GAUGES, 1.5)}],
        "disks": [{"what": "home", "path": "/h", "free_gib": 1.0, "total_gib": 2.0}],
    }
    with api.ledger.begin() as session:
        workers.beat(session, "manual-cpu", state=state)
        workers.beat(session, "manual-cpu")  # one that says nothing about the machine leaves what was said before
    cpu = next(w for w in api.http.get("/v1/workers").json()["items"] if w["id"] == "manual-cpu")
    held = next(held for held in cpu["runs"] if held["run_id"] == run_id)
    assert (held["stage"], held["attempt"], held["progress"]["fraction"]) == ("data", 1, 0.25)
    assert (cpu["devices"], cpu["disks"]) == (state["gpus"], state["disks"])
    worker.finish(claim, Reason.BAD_INPUT)
