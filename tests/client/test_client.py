"""The client against the real API: typed answers, typed errors, and streams that survive a lost connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from client import ApiError, Client, ClientError, Unreachable
from client.models import LogLine
from controlplane import hardware
from controlplane.hardware import Sample
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api


@pytest.fixture
def client(api: Api) -> Iterator[Client]:
    with api.client() as client:
        yield client


def test_a_run_from_submission_to_its_model(client: Client, worker: ManualWorker) -> None:
    run = client.submit("tiny", {"base.num_iterations": 20}, name="by client")
    assert (run.name, run.status, run.is_finished) == ("by client", "QUEUED", False)
    claim = worker.claim(run.id, "data")
    worker.report(claim, "progress", done=1, total=4, unit="shard", eta_s=3.0)
    worker.report(claim, "metric", step=1, values={"loss": 4.5})
    data = client.run(run.id).stage("data")
    assert data.progress is not None
    assert (data.status, data.progress.fraction, data.latest) == ("RUNNING", 0.25, {"loss": 4.5})
    (series,) = client.metrics(run.id, keys=["loss"])
    assert [(p.step, p.last) for p in series.points] == [(1, 4.5)]
    assert client.metrics(run.id, from_step=1, to_step=1) == [series]
    assert client.metrics(run.id, from_step=2) == client.metrics(run.id, to_step=0) == []
    with pytest.raises(ApiError, match="must not be greater than to_step"):
        client.metrics(run.id, from_step=2, to_step=1)
    with worker.ledger.begin() as session:
        hardware.store(session, claim.fence, [Sample(1.7e9, 0, 97.0, 70.5, None, 61.0)])
    (gpu,) = client.hardware(run.id, "data")
    assert (gpu.gpu, gpu.t, gpu.activity_pct and gpu.activity_pct.mean, gpu.power_w) == (0, [1.7e9], [97.0], None)
    for output in claim.outputs:
        worker.report(claim, "artifact", name=output, path=f"/{output}", sha256="ab" * 32)
    worker.finish(claim)
    for stage in run.stages[1:]:
        worker.complete(run.id, stage.name)
    assert client.run(run.id).is_finished
    assert [m.stage for m in client.models() if m.run_id == run.id] == ["sft"]
    final = next(c for c in client.checkpoints(run.id) if c.stage == "base_train")
    assert client.promote(final.id).promoted_at is not None
    assert {w.id for w in client.workers()} >= {"manual-cpu", "manual-gpu"}
    assert run.id in {r.id for r in client.runs(limit=2)}


def test_plans_and_recipes(client: Client) -> None:
    plan = client.plan({"name": "mine", "model": {"depth": 2}}, {"base.num_iterations": 3})
    assert (plan.recipe, plan.config["base"]["num_iterations"], plan.figures.stages[0].steps) == ("mine", 3, 3)
    planned = client.plan("speedrun", gpus=8, gpu="H100", gpu_memory_gib=40, peak_tflops=500, usd_per_hour=2).figures
    assert (planned.world_size, planned.gpu, planned.gpu_memory_gib, planned.usd_per_hour) == (8, "H100", 40, 2)
    assert (planned.stages[0].device_batch_size, planned.stages[0].accumulation) == (16, 2)
    assert {r.name for r in client.recipes()} >= {"tiny", "speedrun"}
    assert client.recipe("tiny").config["model"]["depth"] == 4


def test_one_submission_is_one_run_whatever_is_repeated(client: Client) -> None:
    first = client.submit("tiny", idempotency_key="mine")
    assert client.submit("tiny", idempotency_key="mine").id == first.id
    assert client.submit("tiny").id != first.id


def test_a_refusal_has_the_problem_s_fields(client: Client) -> None:
    with pytest.raises(ApiError) as refusal:
        client.submit("tiny", {"base.total_batch_size": 8000})
    error = refusal.value
    assert (error.status, error.title, error.type) == (422, "The recipe cannot run", "urn:nanochat:problem:invalid-recipe")
    assert [e.field for e in error.errors] == ["base.total_batch_size"]
    assert "base.total_batch_size" in str(error)
    with pytest.raises(ApiError) as refusal:
        client.run("r_00000000000000ff")
    assert refusal.value.status == 404
    run = client.submit("tiny")
    client.cancel(run.id)
    with pytest.raises(ApiError) as refusal:
        client.cancel(run.id)
    assert refusal.value.status == 409


def test_a_wrong_key_is_told(api: Api) -> None:
    with Client(api.url, "nc_wrong") as stranger, pytest.raises(ApiError, match=r"API key is needed \(401\)"):
        stranger.models()


def test_no_server_is_told_with_its_address_and_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", "k") as client:
        assert not client.is_ready()
        with pytest.raises(Unreachable, match=rf"127\.0\.0\.1:{port}.*nanochat up"):
            client.cancel("r_00000000000000ff")


def test_a_recipe_that_json_cannot_hold_is_told() -> None:
    with Client("http://127.0.0.1:1", "k") as client, pytest.raises(ClientError, match="JSON"):
        client.submit({"base": {"target_flops": float("nan")}})


def test_following_gives_every_line_once_and_ends_with_the_run(client: Client, worker: ManualWorker) -> None:
    run = client.submit("tiny")
    claim = worker.claim(run.id, "data")
    got: list[LogLine] = []
    reader = threading.Thread(target=lambda: got.extend(client.follow_logs(run.id)))
    reader.start()
    for n in range(20):
        worker.log(claim, n, str(n))
    worker.finish(claim)
    client.cancel(run.id)
    reader.join(timeout=20)
    assert not reader.is_alive()
    assert [line.line for line in got] == [str(n) for n in range(20)]


def test_events_come_by_pages(client: Client, worker: ManualWorker) -> None:
    run = client.submit("tiny")
    claim = worker.claim(run.id, "data")
    for n in range(3):
        worker.report(claim, "log", level="info", message=str(n))
    first = client.events(run.id, kinds=["log"], limit=2)
    rest = client.events(run.id, kinds=["log"], after=first.next_after)
    assert [e.data["message"] for e in first.items + rest.items] == ["0", "1", "2"]


class Breaking:
    """A bad network: a relay that cuts every connection after `bytes_each` bytes of the answer."""

    def __init__(self, target: str, bytes_each: int):
        host, _, port = target.removeprefix("http://").partition(":")
        self._target, self._bytes = (host, int(port)), bytes_each
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._target) as far:
            far.sendall(near.recv(65_536))
            left = self._bytes
            while left > 0 and (piece := far.recv(min(left, 4096))):
                near.sendall(piece)
                left -= len(piece)

    def close(self) -> None:
        self._listener.close()


def test_a_lost_connection_is_resumed_without_loss_or_repeat(
    api: Api, client: Client, worker: ManualWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.client.RECONNECT_S", 0.01)
    run = client.submit("tiny")
    claim = worker.claim(run.id, "data")
    worker.log(claim, 0, *(f"line {n}" for n in range(100)))
    worker.finish(claim)
    client.cancel(run.id)
    network = Breaking(api.url, bytes_each=3000)
    with Client(network.url, api.key) as away:
        lines = [line.line for line in away.follow_logs(run.id)]
    network.close()
    assert lines == [f"line {n}" for n in range(100)]
    assert network.connections > 3
