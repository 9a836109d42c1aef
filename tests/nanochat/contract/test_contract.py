"""The stage contract: sealed artifacts, whole lines of events, and the report of why a stage ended."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.contract.contract import Artifact, Exit, ExitReport, StageError, StageSpec, artifact_at, seal, verify, write_json
from nanochat.contract.events import EventLog, read


def test_a_sealed_directory_verifies_until_a_byte_changes(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"abc")
    artifact = seal(tmp_path, name="model")
    assert verify(artifact) == tmp_path
    (tmp_path / "weights").write_bytes(b"abd")
    with pytest.raises(StageError, match="weights is missing or not what its manifest says") as caught:
        verify(artifact)
    assert caught.value.exit_code == Exit.BAD_INPUT
    verify(artifact, deep=False)


def test_a_directory_that_was_sealed_again_is_another_artifact(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"abc")
    artifact = seal(tmp_path)
    (tmp_path / "weights").write_bytes(b"xyz")
    seal(tmp_path)
    with pytest.raises(StageError, match="changed since it was published"):
        verify(artifact)
    with pytest.raises(StageError, match="does not exist"):
        verify(Artifact(path=str(tmp_path / "gone"), sha256=artifact.sha256))


def test_numbering_continues_and_an_unfinished_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.emit("metric", step=0, values={"loss": float("nan"), "lr": 0.1})
    log.close()
    again = EventLog(path)
    again.emit("progress", done=1, total=2, unit="step")
    again.close()
    with path.open("a") as file:
        file.write('{"v": 1, "seq": 2, "ki')
    found = list(read(path))
    assert [e["seq"] for e in found] == [0, 1]
    assert found[0]["values"] == {"loss": "nan", "lr": 0.1}
    with pytest.raises(ValueError, match="lacks"):
        log.emit("metric", step=0)


REPORTS = (
    ExitReport(exit_code=70, code="nonfinite", message="loss is nan", rank=3),
    ExitReport(exit_code=75, code="checkpoint_not_written", message="another process failed", rank=2),
    ExitReport(exit_code=1, code="crash", message="KeyError", rank=1),
    ExitReport(exit_code=1, code="peer_lost", message="connection closed", rank=0),
)


@pytest.mark.parametrize("order", [*itertools.permutations(REPORTS)], ids=lambda order: "".join(str(r.rank) for r in order))
def test_the_report_that_says_most_about_the_cause_counts(tmp_path: Path, order: tuple[ExitReport, ...]) -> None:
    assert ExitReport.load(tmp_path) is None
    for written, report in enumerate(order, 1):
        report.save(tmp_path)
        assert ExitReport.load(tmp_path) == min(order[:written], key=REPORTS.index)


def test_of_equal_reports_the_first_counts_and_a_rank_reports_once(tmp_path: Path) -> None:
    for rank in (1, 0):
        ExitReport(exit_code=64, code="core_bundle", message=f"rank {rank}", rank=rank).save(tmp_path)
        ExitReport(exit_code=70, code="nonfinite", message="while it ended", rank=rank).save(tmp_path)
    report = ExitReport.load(tmp_path)
    assert report is not None
    assert report.message == "rank 1"


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_a_stage_that_lacks_an_input_says_which_and_exits_64(tmp_path: Path) -> None:
    spec = StageSpec(
        run="r",
        stage="tok_train",
        kind="tok_train",
        config={"tokenizer": {}},
        output_dir=str(tmp_path / "out"),
        cache_dir=str(tmp_path),
    )
    write_json(tmp_path / "stage.json", spec.model_dump())
    done = subprocess.run(
        [sys.executable, "-m", "nanochat", "tok_train", "--spec", str(tmp_path / "stage.json")], capture_output=True, text=True
    )
    assert done.returncode == Exit.BAD_INPUT, done.stderr
    report = ExitReport.load(spec.out)
    assert report is not None
    assert report.exit_code == Exit.BAD_INPUT
    assert not (spec.out / "manifest.json").exists()


def test_a_spec_of_another_kind_or_no_spec_is_refused(tmp_path: Path) -> None:
    def start(kind: str, path: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-m", "nanochat", kind, "--spec", str(path)], capture_output=True, text=True)

    spec = StageSpec(run="r", stage="data", kind="data", config={}, output_dir=str(tmp_path / "o"), cache_dir=str(tmp_path))
    write_json(tmp_path / "stage.json", spec.model_dump())
    assert "is for stage kind 'data'" in start("sft", tmp_path / "stage.json").stderr
    missing = start("sft", tmp_path / "none.json")
    assert missing.returncode == Exit.BAD_INPUT
    assert missing.stderr == f"cannot read {tmp_path / 'none.json'}: No such file or directory\n"
    for text, named in (("", "the file: "), ("[]", "the file: "), ("{}", "run: Field required"), ('{"kind": 5}', "kind: ")):
        (tmp_path / "broken.json").write_text(text)
        broken = start("sft", tmp_path / "broken.json")
        assert broken.returncode == Exit.BAD_INPUT
        assert "broken.json is no stage specification: " in broken.stderr
        assert named in broken.stderr
        assert "Traceback" not in broken.stderr
        assert "pydantic.dev" not in broken.stderr


def test_an_output_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    spec = StageSpec(run="r", stage="data", kind="data", config={}, output_dir=str(out), cache_dir=str(tmp_path))
    write_json(tmp_path / "stage.json", spec.model_dump())
    command = [sys.executable, "-m", "nanochat", "data", "--spec", str(tmp_path / "stage.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (Exit.FAILED, f"cannot make output_dir {out}: Not a directory\n")


@pytest.mark.parametrize("text", ["[1", "3", "{}", '{"files": 3}', '{"files": [3]}', '{"files": [{"path": "a"}]}', "\udcff"])
def test_a_manifest_that_is_none_is_told_as_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StageError, match="is no manifest"):
        verify(artifact_at(tmp_path))
