"""The evaluation stages and the report, run as the platform runs them, with the models of a small real run."""

import json
import math
import subprocess

import pytest

from nanochat.__main__ import run as run_stage
from nanochat.contract.contract import EVENTS, SPEC, STOP, Exit, ExitReport, read_manifest, seal
from nanochat.contract.events import read
from nanochat.contract.launch import torchrun
from nanochat.data.core_bundle import ROWS
from nanochat.eval import samples
from nanochat.report import sections
from nanochat.report.card import Report, StageCard
from nanochat.tasks import sandbox
from nanochat.tasks.source import TaskSource, write_source

pytestmark = pytest.mark.usefixtures("one_core")


def test_base_eval_publishes_bits_core_and_samples(small_run):
    results = small_run.results("base_eval")
    assert 0 < results["bpb"]["val"] < 20
    assert math.isfinite(results["bpb"]["train"])
    assert results["core"]["core"] is None
    assert set(results["core"]["tasks"]) == {"copa", "winograd", "jeopardy"}
    assert set(results["core"]["missing"]) == set(ROWS) - set(results["core"]["tasks"])
    assert [s["prompt"] for s in results["samples"]] == list(samples.PROMPTS)
    assert results["machine"]["torch"]


def test_base_eval_emits_figures_and_progress(small_run):
    evals = {e["name"]: e["values"] for e in small_run.events("base_eval", "eval")}
    assert evals["bpb"] == small_run.results("base_eval")["bpb"]
    assert evals["core/copa"]["n"] == 9
    assert evals["core"] == {}
    progress = small_run.events("base_eval", "progress")
    assert {"bits per byte, train", "bits per byte, val", "jeopardy"} <= {e["note"] for e in progress}
    assert all(e["done"] <= e["total"] for e in progress)


def test_training_lowers_the_bits(small_run):
    trained = small_run.results("base_train")
    assert small_run.results("base_eval")["bpb"]["val"] < trained["untrained_val_bpb"]


@pytest.mark.parametrize("source", ["mid", "sft", "rl"])
def test_chat_eval_judges_the_model_of_its_source(small_run, source):
    results = small_run.results(f"chat_eval_{source}")
    assert results["source"] == source
    assert set(results["tasks"]) == {"sums", "spelling"}
    for figures in results["tasks"].values():
        assert figures["n"] == 3
        assert 0 <= figures["accuracy"] <= 1
    assert results["chatcore"] is None
    assert {s["task"] for s in results["samples"]} == {"sums", "spelling"}
    assert {e["name"] for e in small_run.events(f"chat_eval_{source}", "eval")} == {"sums", "spelling"}


def test_the_report_shows_the_real_figures(small_run):
    text = (small_run.stage("report") / "report/report.md").read_text()
    bits = small_run.results("base_eval")["bpb"]["val"]
    assert f"| Bits per byte, text | {bits:.4f} |" in text
    for title in ("Data", "Tokenizer training", "Tokenizer evaluation", "Midtraining", "Reinforcement learning", "Recipe"):
        assert f"## {title}\n" in text
    assert "No CORE" in text
    assert "No ChatCORE" in text
    assert "Not part of this run" not in text
    assert samples.PROMPTS[0] in text
    assert "| `model.depth` | 2 | 20 |" in text
    results = small_run.results("report")
    assert results["total_seconds"] > 0
    assert results["summary"]["Bits per byte, text"]["BASE"] == bits
    manifest = read_manifest(small_run.outputs["base_eval.results"])
    assert manifest["started_at"] < manifest["finished_at"]


def test_the_page_draws_what_the_stages_recorded(small_run):
    folder = small_run.stage("report") / "report"
    report = Report.model_validate_json((folder / "report.json").read_text())
    assert report.state == "complete"
    for name in ("base_train", "mid_train", "sft", "rl"):
        recorded = {e["step"]: e["values"]["loss"] for e in small_run.events(name, "metric") if "loss" in e["values"]}
        drawn = next(c for c in report.stage(name).record.curves if c.key == "loss")
        assert drawn.steps == sorted(recorded)
        assert drawn.last == pytest.approx([recorded[step] for step in drawn.steps], rel=1e-5)
    digests = {row.what: row.sha256 for row in report.lineage}
    assert digests["tokenizer"] == small_run.outputs["tok_train.tokenizer"].sha256
    assert digests["model: sft"] == small_run.outputs["sft.model"].sha256
    page = (folder / "report.html").read_text()
    assert page.count("<figcaption>Training loss") == 4
    assert all(title in page for title in ("Beside published models", "What it says", "Chat tasks", "CORE, by task"))


@pytest.mark.parametrize("name", ["base_eval", "chat_eval_mid"])
def test_a_stop_file_ends_it_as_stopped(small_run, tmp_path, name):
    small_run.stage(name)
    out = tmp_path / "again"
    out.mkdir()
    (out / STOP).touch()
    assert run_stage(small_run.spec(name, out)) == Exit.STOPPED
    assert ExitReport.load(out).code == "stopped"
    assert not [e for e in read(out / EVENTS) if e["kind"] == "artifact"]


def test_missing_task_data_are_a_hole_in_the_figures(small_run, tmp_path):
    small_run.stage("chat_eval_mid")
    spec = small_run.spec("chat_eval_mid", tmp_path / "out", config={"chat_eval": {"tasks": ["sums", "gsm8k"]}})
    assert run_stage(spec) == Exit.OK
    results = json.loads((tmp_path / "out/results/results.json").read_text())
    assert list(results["tasks"]) == ["sums"]
    assert "lack gsm8k/test" in results["failed"]["gsm8k"]
    (warning,) = [e for e in read(tmp_path / "out" / EVENTS) if e["kind"] == "warning"]
    assert (warning["code"], "gsm8k" in warning["message"]) == ("evaluation_failed", True)
    assert (tmp_path / "out/results/tasks.csv").read_text().splitlines()[1].startswith("sums,")


def test_an_evaluation_without_any_task_ends_as_bad_input(small_run, tmp_path):
    small_run.stage("chat_eval_mid")
    spec = small_run.spec("chat_eval_mid", tmp_path / "out", config={"chat_eval": {"tasks": ["gsm8k"]}})
    assert run_stage(spec) == Exit.BAD_INPUT
    assert "gsm8k" in ExitReport.load(tmp_path / "out").message


ONE_RANK_IS_SHORT = """
import os, sys, torch
from nanochat import __main__ as stage
from nanochat.engine import Engine
step = Engine.step
def short(self):
    if os.environ["RANK"] == "1" and self.scheduler.max_rows > 70:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
    return step(self)
Engine.step = short
sys.exit(stage.main())
"""


def test_when_one_of_two_ranks_runs_out_of_memory_both_go_on_with_less_at_once(small_run, tmp_path):
    small_run.stage("chat_eval_mid")
    settings = {"chat_eval": {"tasks": ["sums"], "max_problems": 5, "max_new_tokens": 8}}
    alone = small_run.spec("chat_eval_mid", tmp_path / "alone", config=settings)
    assert run_stage(alone) == Exit.OK
    spec = small_run.spec("chat_eval_mid", tmp_path / "two", config=settings)
    spec.out.mkdir()
    (spec.out / SPEC).write_text(spec.model_dump_json())
    (tmp_path / "stage.py").write_text(ONE_RANK_IS_SHORT)
    command = torchrun(2, str(tmp_path / "stage.py"), spec.kind, "--spec", str(spec.out / SPEC))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (warning,) = [e for e in read(spec.out / EVENTS) if e["kind"] == "warning"]
    assert warning["code"] == "evaluation_out_of_memory"
    assert "another process ran out of memory; the evaluation goes on with 1/2" in warning["message"]
    one, two = (json.loads((out / "results/results.json").read_text())["tasks"] for out in (alone.out, spec.out))
    assert one == two


def test_a_users_own_questions_are_evaluated_beside_the_tasks(small_run, tmp_path):
    small_run.stage("chat_eval_mid")
    choices = tmp_path / "choices.jsonl"
    choices.write_text(json.dumps({"question": "Which?", "choices": ["a", "b"], "answer": 0}) + "\n")
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"question": "What?", "regex": ""}\n')
    own = [{"name": "which", "jsonl": str(choices)}, {"name": "anything", "jsonl": str(texts)}]
    changed = {"chat_eval": {"tasks": ["sums"], "own": own, "num_samples": 2, "temperature": 1.0}}
    assert run_stage(small_run.spec("chat_eval_mid", tmp_path / "out", config=changed)) == Exit.OK
    tasks = json.loads((tmp_path / "out/results/results.json").read_text())["tasks"]
    assert tasks["which"]["baseline"] == 0.5
    assert tasks["anything"] == {
        "accuracy": 1.0,
        "stderr": 0.0,
        "n": 1,
        "rows": 1,
        "skipped": 0,
        "baseline": 0.0,
        "pass@1": 1.0,
        "pass@2": 1.0,
    }


PROBLEM = {
    "task_id": "HumanEval/0",
    "prompt": "def double(x):\n",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    "entry_point": "double",
}


def test_it_says_what_confined_the_programs_of_the_model(small_run, tmp_path):
    small_run.stage("mid_train")
    (tmp_path / "HumanEval.jsonl").write_text(json.dumps(PROBLEM) + "\n")
    words = TaskSource.load(small_run.stage("data") / "tasks").words
    write_source(tmp_path / "tasks", {"humaneval/test": [tmp_path / "HumanEval.jsonl"]}, None, words)
    tasks = seal(tmp_path / "tasks")
    spec = small_run.spec("chat_eval_mid", tmp_path / "out", config={"chat_eval": {"tasks": ["humaneval"]}})
    assert run_stage(spec.model_copy(update={"inputs": {**spec.inputs, "tasks": tasks}})) == 0
    results = json.loads((tmp_path / "out/results/results.json").read_text())
    assert results["tasks"]["humaneval"]["n"] == 1
    assert results["sandbox"] == ", ".join((*sandbox.default.walls, "resource limits"))
    warnings = [e["code"] for e in read(tmp_path / "out" / EVENTS) if e["kind"] == "warning"]
    assert ("unconfined_programs" in warnings) != sandbox.default.is_isolated
    shown = sections.of(StageCard(name="chat_eval_mid", title="", state="done", results=results)).facts
    assert ("programs were confined by", results["sandbox"]) in shown


@pytest.mark.slow
def test_two_ranks_measure_the_same_as_one(small_run, tmp_path, torchrun):
    alone = small_run.results("base_eval")
    out = tmp_path / "two"
    out.mkdir()
    (out / "stage.json").write_text(small_run.spec("base_eval", out).model_dump_json())
    torchrun(2, "base_eval", out / "stage.json")
    together = json.loads((out / "results/results.json").read_text())
    assert {k: t["n"] for k, t in together["core"]["tasks"].items()} == {k: t["n"] for k, t in alone["core"]["tasks"].items()}
    for label, task in alone["core"]["tasks"].items():
        assert together["core"]["tasks"][label]["accuracy"] == pytest.approx(
            task["accuracy"], abs=0.12
        )  # ties may be broken differently
    assert together["bpb"]["val"] == pytest.approx(alone["bpb"]["val"], rel=0.2)  # different rows of the same text
