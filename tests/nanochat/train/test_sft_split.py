"""SFT takes the same step however its conversations are divided into device batches and ranks."""

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from .stage_run import StageRun

SFT = {
    "examples_per_step": 8,
    "num_iterations": 1,
    "eval_every": -1,
    "eval_batches": 8,
    "save_every": 1,
    "metrics_every": -1,
    # Answers of very different lengths: the mean over a micro-batch would give the short ones too much weight.
    "train": [{"task": "identity", "size": 40}, {"task": "sums", "size": 40}, {"task": "spelling", "size": 40}],
    "val": [{"task": "sums", "split": "test", "size": 16}],
}


@pytest.fixture(scope="module")
def take_step(inputs, trained, tmp_path_factory):
    """`take_step(rows, ranks)` is a finished SFT of one step, with `rows` conversations in a device batch."""
    out = tmp_path_factory.mktemp("split")

    def run(rows: int, ranks: int = 1) -> StageRun:
        given = {**inputs, "model": trained.artifact("model")}
        # Eight validation rows in total, whatever the split.
        sft = {**SFT, "device_batch_size": rows, "eval_batches": 8 // rows // ranks}
        stage = StageRun(out / f"{rows}x{ranks}", "sft", given, {"sft": sft})
        code = stage.in_process() if ranks == 1 else stage.start(ranks).wait()
        assert code == 0, stage.events("error") or stage.log()
        return stage

    return run


@pytest.fixture(scope="module")
def whole(take_step) -> StageRun:
    return take_step(8)


def gradient(run: StageRun) -> dict[str, Tensor]:
    """The gradient of the first step, times a constant: the optimizer's averages start at zero."""
    shards = [load_file(path) for path in sorted(run.checkpoint(1).dir.glob("optim_rank*.safetensors"))]
    names = [name for name in shards[0] if name.endswith((".exp_avg", ".momentum"))]
    return {name: torch.cat([shard[name] for shard in shards]) for name in names}


def assert_same_step(run: StageRun, whole: StageRun) -> None:
    for name, wanted in gradient(whole).items():
        got = gradient(run)[name][: len(wanted)]  # the shards of several ranks are padded
        assert ((got - wanted).norm() / wanted.norm()).item() < 0.03, name  # bf16, on a processor that multiplies it
    for key in ("loss", "grad_norm"):
        assert run.series(key)[1] == pytest.approx(whole.series(key)[1], rel=0.01), key
    assert run.series("val_loss")[0] == pytest.approx(whole.series("val_loss")[0], rel=0.01)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_the_device_batch_does_not_change_the_step(take_step, whole, rows):
    assert_same_step(take_step(rows), whole)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_the_ranks_do_not_change_the_step(take_step, whole, ranks):
    assert_same_step(take_step(2 if ranks == 4 else 1, ranks), whole)
