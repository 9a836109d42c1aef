"""The `nanochat` command as users see it: output and exit codes."""

from __future__ import annotations

import json
import re
import shlex
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rustbpe
from client.cli import app
from client.cli_base import connect
from controlplane.lifecycle import Reason
from nanochat.tokenizer import Tokenizer
from tests.api.manual_worker import ManualWorker
from tests.client.conftest import Here
from tests.client.terminal import piped
from tests.client.test_usage import words
from tests.nanochat.conftest import CORPUS
from tests.nanochat.interchange.conftest import config_of, random_model, seal_model

COMMANDS = (
    "up",
    "local-run",
    "submit",
    "plan",
    "ps",
    "show",
    "watch",
    "logs",
    "pause",
    "resume",
    "cancel",
    "retry",
    "fork",
    "extend",
    "edit",
    "delete",
    "checkpoints",
    "report",
    "recipes",
    "models",
    "chat",
    "keys",
    "audit",
    "webhook",
    "export",
    "import",
)


pytestmark = pytest.mark.usefixtures("environment")


def said(*arguments: str) -> str:
    """Run the command in this process, which is faster, and return its output. Fails unless the command succeeds."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_help_names_every_command() -> None:
    text = said("--help")
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", text), command


def test_the_version_is_that_of_the_package() -> None:
    assert said("--version") == f"nanochat {metadata.version('nanochat-platform')}\n"
    assert piped("--version").out == said("--version")


def test_a_run_by_command_line(worker: ManualWorker, tmp_path: Path) -> None:
    run_id = said("submit", "tiny", "--set", "base.num_iterations=20", "--name", "typed").strip()
    assert re.fullmatch(r"r_[0-9a-f]{16}", run_id)
    run = json.loads(said("show", run_id, "--json"))
    assert (run["config"]["base"]["num_iterations"], run["name"]) == (20, "typed")
    assert "base_train" in said("show", run_id)
    assert run_id in said("ps")
    assert [r["id"] for r in json.loads(said("ps", "--json", "--limit", "1"))["items"]] == [run_id]
    claim = worker.claim(run_id, "data")
    worker.log(claim, 0, "hello", "wörld")
    assert said("logs", run_id) == "data#1 | hello\ndata#1 | wörld\n"
    assert said("cancel", run_id) == f"{run_id} STOPPING\n"
    worker.finish(claim)
    assert said("logs", run_id, "-f", "--stage", "data") == "data#1 | hello\ndata#1 | wörld\n"
    silent = CliRunner().invoke(app, ["logs", run_id, "--stage", "tok_train", "-n", "1"])
    assert (len(silent.stdout.splitlines()), "newest events" in silent.stderr) == (1, True)
    for command in ("logs", "metrics"):
        wrong = CliRunner().invoke(app, [command, run_id, "--stage", "nope"])
        assert (wrong.exit_code, "it has data, tok_train" in wrong.output) == (2, True)
    assert said("logs", run_id, "-n", "1") == said("logs", run_id, "-f", "--tail", "1") == "data#1 | wörld\n"
    assert run_id in said("ps", "--status", "CANCELLED")


def test_a_failed_run_is_retried_and_a_paused_one_resumed_by_command_line(worker: ManualWorker, here: Here) -> None:
    run_id = said("submit", "tiny").strip()
    assert said("pause", run_id) == f"{run_id} PAUSED\n"
    assert said("resume", run_id) == f"{run_id} QUEUED\n"
    worker.finish(worker.claim(run_id, "data"), Reason.BAD_INPUT, "no text in /data")
    assert said("retry", run_id, "--stage", "data") == f"{run_id} RUNNING\n"
    worker.claim(run_id, "data")
    assert said("cancel", run_id, "--now") == f"{run_id} STOPPING\n"
    done = here("retry", run_id)
    assert (done.code, "which is final" in done.err) == (1, True)


def test_keys_forks_and_checkpoints_by_command_line(worker: ManualWorker, here: Here) -> None:
    secret = said("keys", "make", "a reader", "--role", "viewer", "--expires", "12h").strip()
    assert json.loads(said("keys", "list", "--json"))["items"][0]["role"] == "viewer"
    refused = here("submit", "tiny", NANOCHAT_API_KEY=secret)
    assert (refused.code, "operator" in refused.err) == (4, True)
    key_id = json.loads(said("keys", "list", "--json"))["items"][0]["id"]
    assert said("keys", "expire", key_id, "--in", "never") == f"{key_id} valid\n"
    assert said("keys", "revoke", key_id).startswith(f"{key_id} revoked")
    run_id = said("submit", "tiny", "--name", "the parent").strip()
    for stage in ("data", "tok_train", "tok_eval", "base_train"):
        worker.complete(run_id, stage)
    fork = said("fork", "the parent", "--set", "sft.num_iterations=7", "--from", "base_train").strip()
    stages = json.loads(said("show", fork, "--json"))["stages"]
    assert [s["status"] == "SUCCEEDED" for s in stages[:4]] == [True, True, True, False]
    assert said("fork", run_id, "--checkpoint", "the parent:base_train").startswith("r_")
    assert said("extend", run_id, "base_train", "90", "--name", "longer").startswith("r_")
    with connect() as client:
        checkpoint = client.checkpoints(run_id)[0].id
    assert checkpoint in said("checkpoints", "list", run_id)
    assert said("checkpoints", "unpin", checkpoint) == f"{checkpoint} unpinned\n"
    assert said("edit", fork, "--notes", "a try", "--label", "x", "--label", "y").startswith(fork)
    assert json.loads(said("edit", fork, "--label", "", "--json"))["labels"] == []
    said("cancel", fork)
    assert said("delete", fork) == f"{fork} deleted\n"
    assert "revoke_key" in said("audit")


def test_watching_to_the_end_prints_plain_lines_and_the_report_follows(
    worker: ManualWorker, tmp_path: Path, here: Here
) -> None:
    (tmp_path / "report.md").write_text("# Card\n")
    run_id = said("submit", "tiny").strip()
    for stage in json.loads(said("show", run_id, "--json"))["stages"]:
        worker.complete(run_id, stage["name"], report=str(tmp_path))
    text = said("watch", run_id)
    assert f"{run_id} tiny: SUCCEEDED" in text
    assert re.search(r"✔ base_train SUCCEEDED in \d+s", text)
    assert said("report", run_id, "--raw") == "# Card\n\n"
    page = tmp_path / "card.html"
    assert said("report", run_id, "--html", str(page)) == f"{page}\n"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads(said("report", run_id, "--json")) is None  # this report stage made Markdown alone
    seen = tmp_path / "seen"
    opened = piped("report", run_id, "--html", str(page), "--open", BROWSER=f"sh -c 'echo $0 > {seen}' %s")
    assert (opened.code, seen.read_text(encoding="utf-8")) == (0, f"{page.as_uri()}\n"), opened.err
    nowhere = here("report", run_id, "--html", str(tmp_path / "none" / "card.html"))
    assert (nowhere.code, "cannot be written" in nowhere.err) == (2, True)
    assert run_id in said("models")


def test_a_promoted_model_is_exported_by_its_id(worker: ManualWorker, tmp_path: Path, here: Here) -> None:
    tokenizer = Tokenizer.from_merges(rustbpe.train(CORPUS, 391))
    sealed = seal_model(random_model(config_of("speedrun")), tokenizer, tmp_path)
    run_id = said("submit", "tiny").strip()
    for stage in json.loads(said("show", run_id, "--json"))["stages"]:
        paths = (
            {"model": str(sealed.model_dir), "tokenizer": str(sealed.tokenizer_dir)} if stage["name"] != "base_train" else {}
        )
        worker.complete(run_id, stage["name"], **paths)
    model = next(line.split()[0] for line in said("models").splitlines() if run_id in line)
    done = here("export", "--to", "safetensors", "--model", model, str(tmp_path / "out"))
    assert done.code == 0, done.err
    assert {"model.safetensors", "nanochat.json", "tokenizer.json"} == {path.name for path in (tmp_path / "out").iterdir()}
    refused = here("export", "--to", "hf", "--model", "m_none", str(tmp_path / "none"))
    assert (refused.code, "there is no model 'm_none'" in refused.err) == (1, True)
    refused = here("export", "--to", "hf", "--model", str(sealed.model_dir), str(tmp_path / "none"))
    assert (refused.code, "--tokenizer DIR" in refused.err) == (2, True)


def test_a_data_folder_becomes_the_source(tmp_path: Path, here: Here) -> None:
    done = here("submit", "tiny", "--data", str(tmp_path / "none"))
    assert done.code == 2
    assert str(tmp_path / "none") in done.err
    assert "data.source" in done.err


def test_a_recipe_file_is_read_here(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nmodel.depth = 2\nbase.num_iterations = 3\n')
    plan = json.loads(said("plan", str(path), "--json"))
    assert (plan["recipe"], plan["config"]["model"]["depth"]) == ("mine", 2)
    assert "base_train" in said("plan", str(path))
    assert "speedrun" in said("recipes")


NOWHERE = {"NANOCHAT_API_URL": "http://127.0.0.1:1", "NANOCHAT_API_KEY": ""}


def test_a_plan_for_named_gpus_needs_no_service_and_agrees_with_the_api(tmp_path: Path, here: Here) -> None:
    done = here("plan", "speedrun", "--gpus", "8", "--gpu", "H100", **NOWHERE, COLUMNS="100")
    assert done.code == 0, done.err
    (row,) = [line.split() for line in done.out.splitlines() if line.startswith("base_train")]
    assert row == ["base_train", "21.4k", "11.2B", "3.92e19", "32", "x", "1", "41.9", "1.29M", "2.41", "57.91", "estimate"]
    assert "8 x H100 (79.1 GiB, 989 TFLOPS at 57 % MFU, $3.00/h each)" in done.out
    asked = ("--gpu-memory", "40", "--peak-tflops", "500", "--usd-per-hour", "0", "--set", "base.num_iterations=10")
    planned = json.loads(here("plan", "speedrun", *asked, "--json", **NOWHERE).out)
    with connect() as api:
        there = api.plan("speedrun", {"base.num_iterations": 10}, gpus=1, gpu_memory_gib=40, peak_tflops=500, usd_per_hour=0)
    assert planned == there.model_dump(mode="json")
    assert (planned["figures"]["stages"][0]["device_batch_size"], planned["figures"]["usd"]) == (16, 0)


def test_an_empty_list_says_so(worker: ManualWorker, here: Here) -> None:
    run = said("submit", "tiny").strip()
    for command in (("checkpoints", "list", run), ("webhook", "list"), ("ps", "--status", "FAILED", "--limit", "1")):
        done = here(*command)
        assert (done.code, done.out, done.err[:2]) == (0, "", "No"), command


def test_the_line_below_a_plan_submits_that_very_plan(worker: ManualWorker, here: Here) -> None:
    ManualWorker(worker.ledger)  # registers anew, so that it is alive for both commands
    options = ("--set", "base.num_iterations=20", "--set", 'sft.train=[{"task": "identity"}]', "--usd-per-hour", "3")
    planned = here("plan", "tiny", *options)
    assert planned.code == 0, planned.err
    line = planned.out.splitlines()[-1].removeprefix("Submit this very plan: nanochat ")
    submitted = here(*shlex.split(line))
    assert submitted.code == 0, submitted.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("speedrun", "--gpus", "24"), "1,572,864"),
        (("speedrun", "--gpus", "0"), "--gpus"),
        (("speedrun", "--gpu-memory", "-1"), "--gpu-memory"),
        (("huge", "--gpus", "1"), "unknown recipe 'huge'"),
        (("speedrun", "--gpus", "1", "--set", "base.x=1"), "base.x: unknown field"),
        (("none.toml", "--gpus", "1"), "no file none.toml"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_words(arguments: tuple[str, ...], word: str, here: Here) -> None:
    done = here("plan", *arguments, **NOWHERE)
    assert (done.code, done.out) == (2, "")
    assert word in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("submit", "huge"), 2, ("unknown recipe 'huge'", "tiny")),
        (("submit", "my.yaml"), 2, ("my.yaml is neither the name of a recipe nor a .toml file",)),
        (("submit", "./tiny"), 2, ("./tiny is neither the name of a recipe nor a .toml file",)),
        (("submit", "tiny", "--set", "base.x=1"), 2, ("base.x", "unknown field")),
        (("submit", "tiny", "--set", "base"), 2, ("--set", "field=value")),
        (("local-run", "tiny", "--set", "nonsense"), 2, ("--set", "field=value", "nonsense")),
        (("local-run", "tiny", "--set", "base.colour=1"), 2, ("base.colour: unknown field",)),
        (("local-run", "tiny", "--data", "/no/such/folder"), 2, ("data.source", "/no/such/folder")),
        (("submit", "none.toml"), 2, ("none.toml", "No such file")),
        (("submit",), 2, ("RECIPE",)),
        (("show", "r_00000000000000ff"), 1, ("No such run", "r_00000000000000ff")),
        (("local-run", "tiny", "--from", "/no/such/folder"), 2, ("from.model", "no folder /no/such/folder")),
        (("local-run", "huge"), 2, ("unknown recipe 'huge'", "tiny")),
    ],
)
def test_mistakes_are_told_in_words(arguments: tuple[str, ...], code: int, words: tuple[str, ...], here: Here) -> None:
    done = here(*arguments)
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


def test_a_wrong_key_and_no_server_are_told_in_words() -> None:
    done = piped("ps", NANOCHAT_API_KEY="nc_wrong")
    assert (done.code, "401" in done.err) == (4, True)
    done = piped("ps", NANOCHAT_API_URL="http://127.0.0.1:1")
    assert done.code == 3
    assert "http://127.0.0.1:1" in done.err
    assert "nanochat up" in done.err
    assert "Traceback" not in done.err


def test_watching_a_run_that_fails_says_why(worker: ManualWorker, here: Here) -> None:
    run_id = said("submit", "tiny").strip()
    worker.finish(worker.claim(run_id, "data"), Reason.BAD_INPUT, "no text in /data")
    done = here("watch", run_id)
    assert done.code == 1
    assert "no text in /data" in done.out + done.err
    assert f"nanochat logs {run_id}" in done.err


def test_a_kind_of_event_that_does_not_exist_is_told_with_those_that_do(worker: ManualWorker, here: Here) -> None:
    run = said("submit", "tiny").strip()
    assert "run_submitted" in said("events", run, "--kind", "run_submitted", "--json")
    wrong = here("events", run, "--kind", "run_submitted", "--kind", "nope", columns=60)
    assert (wrong.code, wrong.widest <= 60) == (2, True)
    assert "there is no kind nope" in words(wrong.out)
    assert "sample, stage_status, stage_taken_over" in words(wrong.out)
    assert "PENDING → QUEUED" in here("logs", run, "--stage", "data").out
    other = here("logs", run, "--attempt", "7")
    assert (other.code, other.out, "none of that stage or attempt" in other.err) == (0, "", True)
    none = here("events", run, "--kind", "promoted")
    assert (none.code, none.out, none.err) == (0, "", "The run has no events of that kind.\n")


def test_the_stage_of_a_fork_that_does_not_exist_is_told_as_one(worker: ManualWorker, here: Here) -> None:
    run = said("submit", "tiny").strip()
    wrong = here("fork", run, "--from", "nope")
    assert wrong.code == 1
    assert wrong.err.startswith("nanochat: The run has no such stage (404): the new run has no stage 'nope'; it has data,")
    assert here("lineage", run, "--of", "nope").err.startswith("nanochat: The lineage has no such node (404)")
    assert here("fork", "nope", "--from", "sft").err.startswith("nanochat: No such run (404)")
