"""Downloads of checkpoints, and the lineage of a run, through the API and the client."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from client.errors import ApiError
from controlplane.lifecycle import Reason
from nanochat.contract.contract import Artifact, seal, verify
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def saved(api: Api, tmp_path: Path) -> tuple[str, str, Artifact]:
    """A run, and a checkpoint of it that is really on the disk."""
    folder = tmp_path / "step_000010"
    (folder / "optim").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(CONTENT)
    (folder / "optim" / "rank0.safetensors").write_bytes(b"o" * 100)
    sealed = seal(folder)
    worker, client = ManualWorker(api.ledger), api.client()
    run = client.submit("tiny").id
    worker.complete(run, "data")
    worker.complete(run, "tok_train")
    claim = worker.claim(run, "base_train")
    worker.report(claim, "checkpoint", step=10, path=sealed.path, sha256=sealed.sha256, bytes=1, final=False, val_bpb=1.5)
    worker.finish(claim, Reason.NONFINITE)
    return run, client.checkpoints(run)[0].id, sealed


def test_a_range_and_what_is_no_range(api: Api, saved: tuple[str, str, Artifact]) -> None:
    _, checkpoint, _ = saved
    address = f"/v1/checkpoints/{checkpoint}/files/model.safetensors"
    whole = api.http.get(address)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["etag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    for header, part in {"bytes=10-19": CONTENT[10:20], "bytes=-7": CONTENT[-7:], "bytes=1023990-": CONTENT[1023990:]}.items():
        answer = api.http.get(address, headers={"Range": header})
        assert (answer.status_code, answer.content) == (206, part), header
    assert answer.headers["content-range"] == f"bytes 1023990-{len(CONTENT) - 1}/{len(CONTENT)}"
    for header in ("bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=x"):
        assert api.http.get(address, headers={"Range": header}).status_code == 200, header
    beyond = api.http.get(address, headers={"Range": f"bytes={len(CONTENT)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")
    assert beyond.json()["type"].endswith("range-not-satisfiable")
    changed = api.http.get(address, headers={"Range": "bytes=5-", "If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, CONTENT)


@pytest.mark.parametrize("name", ["nothing", "../manifest.json", "optim/../../secret", "optim"])
def test_only_files_of_the_manifest_are_served(api: Api, saved: tuple[str, str, Artifact], name: str) -> None:
    _, checkpoint, sealed = saved
    (sealed.dir.parent / "secret").write_text("x")
    answer = api.http.get(f"/v1/checkpoints/{checkpoint}/files/{name.replace('..', '%2e%2e')}")
    assert answer.status_code == 404, answer.text


def test_an_interrupted_download_continues(api: Api, saved: tuple[str, str, Artifact], tmp_path: Path) -> None:
    _, checkpoint, sealed = saved
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "model.safetensors.part").write_bytes(CONTENT[:300_000])
    api.client().download(checkpoint, copy)
    assert verify(Artifact(path=str(copy), sha256=sealed.sha256)) == copy
    assert sorted(p.name for p in copy.iterdir()) == ["manifest.json", "model.safetensors", "optim"]
    (copy / "model.safetensors").write_bytes(b"y" * len(CONTENT))
    (copy / "optim" / "rank0.safetensors.part").write_bytes(b"garbage")
    (copy / "optim" / "rank0.safetensors").unlink()
    with pytest.raises(Exception, match="damaged"):
        api.client().download(checkpoint, copy)
    api.client().download(checkpoint, copy)
    assert (copy / "model.safetensors").read_bytes() == CONTENT


def test_files_that_are_not_what_the_manifest_says(api: Api, saved: tuple[str, str, Artifact]) -> None:
    _, checkpoint, sealed = saved
    address = f"/v1/checkpoints/{checkpoint}/files"
    assert api.http.get(address).json()["intact"] is True
    (sealed.dir / "model.safetensors").write_bytes(b"short")
    (sealed.dir / "optim" / "rank0.safetensors").unlink()
    listed = api.http.get(address).json()
    assert {f["path"]: f["state"] for f in listed["items"]} == {
        "model.safetensors": "another size",
        "optim/rank0.safetensors": "missing",
    }
    assert listed["intact"] is False
    assert api.http.get(f"{address}/model.safetensors").status_code == 409
    (sealed.dir / "manifest.json").write_text(json.dumps({"files": []}))
    refused = api.http.get(address)
    assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (409, "files-damaged")


def test_a_score_leads_back_to_what_it_was_measured_on(api: Api) -> None:
    worker, client = ManualWorker(api.ledger), api.client()
    run = client.submit("tiny").id
    for stage in ("data", "tok_train", "base_train", "mid_train"):
        worker.complete(run, stage)
    claim = worker.claim(run, "chat_eval_mid")
    worker.report(claim, "eval", name="arc_easy", values={"accuracy": 0.25, "n": 10})
    worker.report(claim, "eval", name="arc_easy", values={"accuracy": 0.5, "n": 10})
    worker.finish(claim, Reason.NONFINITE)
    found = client.lineage(run, of="chat_eval_mid:arc_easy")
    assert [n.label for n in found.nodes if n.kind == "score"] == ["arc_easy: accuracy 0.5, n 10"]
    assert {"mid_train.model", "base_train.model", "tok_train.tokenizer", "data.shards"} <= {n.id for n in found.nodes}


def test_lineage_from_the_data_to_a_checkpoint(api: Api, saved: tuple[str, str, Artifact]) -> None:
    run, checkpoint, sealed = saved
    client = api.client()
    whole = client.lineage(run)
    assert {n.kind for n in whole.nodes} >= {"stage", "artifact", "checkpoint"}
    made_from = client.lineage(run, of=checkpoint)
    ids = {n.id for n in made_from.nodes}
    assert {checkpoint, "base_train", "tok_train.tokenizer", "tok_train", "data.shards", "data.tok_shards", "data"} <= ids
    assert not ids & {"sft", "report", "tok_eval"}
    assert next(n.sha256 for n in made_from.nodes if n.id == checkpoint) == sealed.sha256
    assert made_from.mermaid.startswith("flowchart LR\n")
    assert made_from.mermaid.count(" --> ") == len(made_from.edges)
    assert "base_train step 10, 1.5000 bpb" in made_from.mermaid
    with pytest.raises(ApiError, match="no node"):
        client.lineage(run, of="made.up")
