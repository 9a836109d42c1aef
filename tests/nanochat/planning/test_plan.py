"""Plans: the figures of the speedrun, device batches that fit, and refusals."""

import math
import subprocess
import sys

import pytest

from nanochat.config import recipe
from nanochat.config.shape import GPTConfig, flops_per_token, num_params
from nanochat.model import GPT
from nanochat.planning import batches, gpus, memory, plan


def shape(depth, vocab=65_536):
    return GPTConfig.of(recipe.ModelSpec(depth=depth), vocab)


def stage(planned, name):
    return next(s for s in planned.stages if s.stage == name)


def warnings(name, planned, gpu=None):
    return plan.run_plan(recipe.resolve(name), planned, gpu).warnings


def test_packed_finetuning_takes_the_steps_that_its_full_rows_need():
    planned = stage(plan.plan(recipe.resolve("speedrun", {"sft.packing": "best_fit"}), 8, "H100"), "sft")
    rows = math.ceil(22_439 * plan.TOKENS_PER_ROW / 2048)
    assert (planned.steps, planned.tokens) == (rows // 32, rows // 32 * 32 * 2048)


def test_speedrun_on_eight_gpus():
    planned = plan.plan(recipe.resolve("speedrun"), 8, "H100")
    base = stage(planned, "base_train")
    assert planned.params == 560_988_160
    assert planned.flops_per_token == 3_491_758_080
    assert (base.steps, base.tokens) == (21_400, 11_219_763_200)
    assert base.flops == pytest.approx(3.917670e19, rel=1e-6)
    assert (base.warmdown_steps, base.eval_steps, base.accumulation) == (4280, 20, 1)
    assert base.hours == pytest.approx(2.41, abs=0.01)  # nanochat took 2.87
    assert base.usd == pytest.approx(base.hours * 24)
    assert (stage(planned, "mid_train").steps, stage(planned, "mid_train").accumulation) == (809, 1)
    assert (stage(planned, "sft").steps, stage(planned, "sft").accumulation) == (701, 1)
    assert planned.hours == pytest.approx(sum(s.hours for s in planned.stages))


def test_speedrun_on_one_gpu_takes_eight_micro_batches():
    planned = plan.plan(recipe.resolve("speedrun"))
    assert stage(planned, "base_train").accumulation == 8
    assert stage(planned, "base_train").steps == 21_400
    assert (planned.gpu, planned.hours, planned.usd) == (None, None, None)


def test_a_cpu_needs_minutes_for_tiny_and_years_for_the_speedrun_and_the_plan_says_so():
    tiny, speedrun = (plan.plan(recipe.resolve(name), 1, "cpu") for name in ("tiny", "speedrun"))
    assert (tiny.gpu, tiny.usd) == ("CPU", None)
    assert plan.plan(recipe.resolve("tiny"), 1, "cpu", usd_per_hour=2).usd == pytest.approx(2 * tiny.hours)
    assert 1 < 60 * tiny.hours < 60
    assert speedrun.hours > 10_000
    assert plan.run_plan(recipe.resolve("tiny"), tiny).warnings == []
    (warning,) = plan.run_plan(recipe.resolve("speedrun"), speedrun).warnings
    assert f"about {speedrun.hours:,.0f} hours" in warning


@pytest.mark.parametrize(
    ("depth", "params", "flops", "steps"),
    [
        (4, 36_700_160, 1.447e8, 1_400),
        (12, 185_597_952, 1.038e9, 7_080),
        (20, 560_988_160, 3.491758e9, 21_400),
        (26, 1_081_999_360, 6.901e9, 41_275),
        (32, 1_879_048_192, 1.207960e10, 71_680),
    ],
)
def test_parameters_flops_and_steps_by_depth(depth, params, flops, steps):
    assert num_params(shape(depth)) == params
    assert flops_per_token(shape(depth)) == pytest.approx(flops, rel=5e-4)
    assert plan.base_steps(recipe.BaseSpec(), shape(depth)) == steps


def test_the_real_model_has_the_planned_number_of_parameters():
    import torch

    with torch.device("meta"):
        assert GPT(shape(20)).num_params() == 560_988_160
        assert GPT(shape(32)).num_params() == 1_879_048_192


def test_iterations_override_flops_which_override_the_ratio():
    spec = {"total_batch_size": 524_288, "target_flops": 1e19, "param_data_ratio": 5.0}
    assert plan.base_steps(recipe.BaseSpec(**spec, num_iterations=7), shape(20)) == 7
    assert plan.base_steps(recipe.BaseSpec(**spec), shape(20)) == round(1e19 / (3_491_758_080 * 524_288))
    assert plan.base_steps(recipe.BaseSpec(param_data_ratio=5.0), shape(20)) == math.floor(5 * 560_988_160 / 524_288)


def test_rl_steps():
    planned = plan.plan(recipe.resolve("speedrun", {"rl.enabled": True}), 8)
    assert (stage(planned, "rl").steps, stage(planned, "rl").flops) == (467, None)


def test_indivisible_batch_names_sizes_that_fit():
    with pytest.raises(recipe.RecipeError) as caught:
        plan.plan(recipe.resolve("speedrun"), 24)
    assert caught.value.problems[0][0] == "base.total_batch_size"
    assert "1,572,864" in str(caught.value)
    with pytest.raises(recipe.RecipeError, match=r"set base.device_batch_size to 16"):
        plan.plan(recipe.resolve("speedrun"), 16)
    plan.plan(
        recipe.resolve("speedrun", {"base.device_batch_size": 16, "mid.device_batch_size": 16, "sft.device_batch_size": 2}), 16
    )
    with pytest.raises(recipe.RecipeError, match=r"sft.examples_per_step: 32 .* nearest that fit: 64"):
        plan.plan(recipe.resolve("speedrun", {"base.device_batch_size": 16, "mid.device_batch_size": 16}), 16)
    with pytest.raises(recipe.RecipeError, match=r"rl\.examples_per_step"):
        batches.example_accumulation("rl", 5, 2, 1)


@pytest.mark.parametrize(
    ("depth", "rows", "ranks", "gib", "tolerance"),
    [
        (20, 32, 1, 44.05, 0.01),  # on one H100 with 80 GB; nanochat takes 72.1
    ],
)
def test_predicted_memory_is_near_what_was_measured(depth, rows, ranks, gib, tolerance):
    assert memory.peak_gib(shape(depth), rows, ranks) == pytest.approx(gib, rel=tolerance)


@pytest.mark.parametrize(
    ("depth", "ranks", "gpu", "rows"),
    [
        (20, 8, "H100", 32),
        (26, 8, "H100", 32),
        (32, 8, "H100", 16),
        (20, 1, "RTX 5090", 16),
        (20, 1, "H200", 32),
        (20, 1, "RTX 4090", 8),
    ],
)
def test_the_device_batch_is_the_largest_that_fits(depth, ranks, gpu, rows):
    base = stage(plan.plan(recipe.resolve("speedrun", {"model.depth": depth}), ranks, gpu), "base_train")
    assert (base.device_batch_size, base.accumulation) == (rows, 256 // ranks // rows)
    assert base.fits
    assert base.peak_gib < gpus.find(gpu).memory_gib
    assert base.eval_steps * rows * ranks == 10_240 / 2  # the same tokens with every batch


def test_the_device_batch_is_at_most_the_recipe_s_and_divides_the_step():
    def rows(**base):
        table = {"model": {"depth": 4}, "base": {"total_batch_size": 96 * 2048, **base}}
        return stage(plan.plan(recipe.resolve(table, {"mid.total_batch_size": 32 * 2048}), 1, "H100", memory_gib), "base_train")

    memory_gib = 24.0
    assert rows(device_batch_size=2).device_batch_size == 2
    memory_gib = memory.peak_gib(shape(4), 31) / memory.USABLE
    assert (rows(device_batch_size=32).device_batch_size, rows(device_batch_size=32).accumulation) == (24, 4)


def test_an_uncompiled_model_takes_as_many_positions_as_fit():
    config, rows = shape(20), 8
    assert memory.positions(config, rows, None) == memory.positions(config, rows, 100.0) == rows * config.sequence_len
    some = memory.positions(config, rows, 6.0)
    assert 4000 < some < rows * config.sequence_len
    assert memory.positions(config, rows, 9.0) - some == pytest.approx(3 * 2**30 / (1280 * 2 * (15 * 20 + 4)), abs=2)
    assert memory.positions(config, rows, -1.0) == 1  # the model then takes one row at a time


def test_given_figures_override_the_table():
    planned = plan.plan(recipe.resolve("speedrun"), 8, "H100", 40.0, peak_tflops=500, usd_per_hour=1.5)
    base = stage(planned, "base_train")
    assert (planned.gpu_memory_gib, planned.peak_tflops, planned.mfu, planned.usd_per_hour) == (40.0, 500, 0.57, 1.5)
    assert base.device_batch_size == 16
    assert base.tok_per_s == pytest.approx(8 * 500e12 * 0.57 / planned.flops_per_token)
    assert base.hours == pytest.approx(base.tokens / base.tok_per_s / 3600)
    assert base.usd == pytest.approx(base.hours * 8 * 1.5)
    assert "base_train takes 16 rows at a time, not the recipe's 32" in warnings("speedrun", planned)[0]


def test_an_unknown_gpu_keeps_the_recipe_s_batch_and_warns():
    planned = plan.plan(recipe.resolve("speedrun"), 1, "Voodoo 2")
    assert stage(planned, "base_train").device_batch_size == 32
    assert stage(planned, "base_train").peak_gib is None
    assert "Voodoo 2 is not in the table" in warnings("speedrun", planned, "Voodoo 2")[0]
    described = plan.plan(recipe.resolve("speedrun"), 1, "Voodoo 2", 24.0, peak_tflops=100)
    assert stage(described, "base_train").device_batch_size == 8
    assert not any("table" in text for text in warnings("speedrun", described, "Voodoo 2"))
    assert described.hours > 0
    assert described.usd is None


def test_a_gpu_too_small_for_one_row_gives_a_warning():
    planned = plan.plan(recipe.resolve("run1000"), 1, "RTX 4090")
    base = stage(planned, "base_train")
    assert (base.device_batch_size, base.fits) == (1, False)
    assert "base_train is predicted to need" in warnings("run1000", planned)[0]


def test_steps_are_unknown_for_a_file_of_unknown_length():
    uses = [{"task": "jsonl", "path": "chat.jsonl"}]
    planned = plan.plan(recipe.resolve("speedrun", {"mid.train": uses, "sft.train": uses}))
    assert (stage(planned, "mid_train").steps, stage(planned, "sft").steps) == (None, None)


def test_the_table_of_gpus_is_complete():
    for gpu in gpus.GPUS:
        assert gpus.find(gpu.name) is gpu, "an earlier row matches its name"
        assert 10 < gpu.memory_gib < 300
        assert 1e14 < gpu.peak_flops < 1e16
        assert 0 < gpu.mfu < 1


@pytest.mark.parametrize(
    ("said", "name", "memory_gib"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100", 79.1),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB", 39.4),
        ("A100-PCIE-40GB", "A100 40GB", 39.4),
        ("A100 40GB", "A100 40GB", 39.4),
        ("a100 pcie 40 gb", "A100 40GB", 39.4),
        ("A100-SXM-64GB", "A100", 0.989 * 64),
        ("V100 32GB", "V100 32GB", 31.7),
        ("Tesla V100-PCIE-32GB", "V100 32GB", 31.7),
        ("Tesla V100-SXM3-32GB", "V100 32GB", 31.7),
        ("Tesla V100-SXM2-16GB", "V100", 15.8),
        ("NVIDIA GH200 480GB", "GH200", 94.5),
        ("GH200 480GB", "GH200", 94.5),
        ("NVIDIA GH200 144G HBM3e", "GH200 144GB", 139.8),
        ("NVIDIA H200", "H200", 139.8),
        ("NVIDIA H100 NVL", "H100 NVL", 93.1),
        ("NVIDIA GB200", "GB200", 183.0),
        ("NVIDIA GB10", "GB10", 119.6),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000", 94.9),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Max-Q", 94.9),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", 23.5),
        ("rtx4090", "RTX 4090", 23.5),
    ],
)
def test_a_card_is_told_from_others_of_like_names(said, name, memory_gib):
    found = gpus.find(said)
    assert (found.name, found.memory_gib) == (name, pytest.approx(memory_gib))


@pytest.mark.parametrize(
    "said",
    [
        "NVIDIA GeForce RTX 5090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
        "Tesla V100S-PCIE-32GB",
        "NVIDIA RTX 6000 Ada Generation",
        "NVIDIA H20",
        "NVIDIA L40",
    ],
)
def test_a_card_that_is_not_in_the_table_is_not_taken_for_another(said):
    assert gpus.find(said) is None


def test_gpus_are_found_by_their_drivers_names():
    assert gpus.find("NVIDIA H100 80GB HBM3").peak_flops == 989e12
    assert gpus.find("NVIDIA H100 PCIe").peak_flops == 756e12
    assert gpus.find("h200").name == "H200"
    assert gpus.find("Some Other GPU") is None
    assert gpus.find(None) is None


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_can_be_planned_without_torch(name):
    code = f"import sys; from nanochat.config import recipe; from nanochat.planning import plan; print(plan.plan(recipe.resolve({name!r})).model_dump_json()); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"stages"' in done.stdout
