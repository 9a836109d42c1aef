"""Stages as jobs of a cluster: what we generate and what `k8s/trainjob` holds fit the schemas of Kubeflow Trainer, JobSet and Kueue."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from nanochat.contract.contract import StageSpec
from services.worker.trainjob import QUEUE, RUNTIME, name_of, train_job

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "k8s" / "trainjob"
CRDS = json.loads((HERE / "schemas" / "crds.json").read_text())
VERSION = "1.34"


def check(thing: dict[str, Any]) -> None:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": CRDS["$defs"], **CRDS["kinds"][thing["kind"]]}
    jsonschema.Draft202012Validator(schema).validate(thing)


def objects() -> dict[str, dict[str, Any]]:
    found = [thing for file in sorted(FOLDER.glob("*.yaml")) for thing in yaml.safe_load_all(file.read_text())]
    return {thing["kind"]: thing for thing in found}


def spec(path: Path, *, stage: str = "base_train") -> Path:
    made = StageSpec(
        run="r_0123456789abcdef", stage=stage, kind="base_train", attempt=2, config={}, output_dir="/o", cache_dir="/c"
    )
    path.write_text(made.model_dump_json())
    return path


@pytest.mark.parametrize("kind", ["TrainingRuntime", "ResourceFlavor", "ClusterQueue", "LocalQueue"])
def test_the_objects_of_the_cluster_fit_their_schema(kind: str) -> None:
    check(objects()[kind])


def test_the_template_of_the_runtime_is_a_job() -> None:
    (job,) = objects()["TrainingRuntime"]["spec"]["template"]["spec"]["replicatedJobs"]
    metadata = {"name": "x", **job["template"]["metadata"]}
    kubernetes_validate.validate(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job["template"]["spec"]}, VERSION, strict=True
    )
    assert job["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert job["template"]["spec"]["backoffLimit"] == 0  # the platform retries, from a checkpoint


def test_a_stage_becomes_a_job_of_the_queue_and_the_runtime(tmp_path: Path) -> None:
    path = spec(tmp_path / "stage.json")
    command = [sys.executable, "-m", "services.worker.trainjob", str(path), "--nodes", "2", "--image", "nanochat-worker:0.1.0"]
    job = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    check(job)
    kinds = objects()
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == QUEUE == kinds["LocalQueue"]["metadata"]["name"]
    assert job["spec"]["runtimeRef"]["name"] == RUNTIME == kinds["TrainingRuntime"]["metadata"]["name"]
    assert job["spec"]["suspend"] is True
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 8)
    assert trainer["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": 8}
    assert trainer["command"][-4:] == ["nanochat", "base_train", "--spec", str(path)]


def test_names_are_dns_labels_and_tell_attempts_apart(tmp_path: Path) -> None:
    for stage in ("base_train", "a" * 80):
        one = StageSpec.model_validate_json(spec(tmp_path / "stage.json", stage=stage).read_bytes())
        names = {name_of(one.model_copy(update={"attempt": attempt})) for attempt in (1, 2, 12)}
        assert len(names) == 3
        for name in names:
            assert len(f"{name}-node-0-00") <= 63
            jsonschema.validate(name, CRDS["$defs"]["dnsLabel"])


def test_the_check_is_strict(tmp_path: Path) -> None:
    path = spec(tmp_path / "stage.json")
    job = train_job(StageSpec.model_validate_json(path.read_bytes()), path, nodes=2, gpus=8, image="i:1")
    job["spec"]["trainer"]["numProcsPerNode"] = 8
    with pytest.raises(jsonschema.ValidationError):
        check(job)


def test_a_file_that_is_no_stage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stage.json").write_text("{}")
    command = [sys.executable, "-m", "services.worker.trainjob", str(tmp_path / "stage.json"), "--image", "i:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is no stage specification" in done.stderr
