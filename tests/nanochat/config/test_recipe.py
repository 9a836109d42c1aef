"""Recipes: nanochat's settings, overrides, and refusals that name the field and what to do."""

import pytest

from nanochat.config import recipe
from nanochat.config.recipe import RecipeError, resolve


def test_speedrun_has_the_settings_of_nanochats_speedrun() -> None:
    r = resolve("speedrun")
    assert (r.model.depth, r.model.n_embd, r.model.n_head, r.model.seq_len) == (20, 1280, 10, 2048)
    assert (r.tokenizer.vocab_size, r.tokenizer.max_chars, r.tokenizer.doc_cap) == (65_536, 2_000_000_000, 10_000)
    assert (r.base.total_batch_size, r.base.device_batch_size, r.base.param_data_ratio) == (524_288, 32, 20)
    assert (r.base.warmdown_ratio, r.base.eval_every, r.base.eval_tokens, r.base.optim.grad_clip) == (0.2, 250, 10_485_760, 1.0)
    assert (r.mid.eval_every, r.mid.init_lr_frac, r.mid.optim.grad_clip) == (150, 1.0, 0.0)
    assert (r.sft.device_batch_size, r.sft.examples_per_step, r.sft.init_lr_frac, r.sft.num_epochs) == (4, 32, 0.02, 1)
    assert (r.rl.examples_per_step, r.rl.num_samples, r.rl.max_new_tokens, r.rl.init_lr_frac) == (16, 16, 256, 0.05)


@pytest.mark.parametrize("name", ["speedrun", "d26", "run1000"])
def test_later_improvements_are_off_in_recipes_of_november_2025(name: str) -> None:
    r = resolve(name)
    m, o, b = r.model, r.base.optim, r.base
    assert not any((m.residual_scalars, m.value_embeds, m.smear, m.backout))
    assert (m.window_pattern, m.qk_scale, m.rope_base) == ("L", 1.0, 10_000)
    assert (m.init.embedding_std, m.init.matrices, m.init.mlp_scale, m.init.head_std) == (1.0, "normal", 1.0, 0.0)
    assert (o.embedding_lr, o.unembedding_lr, o.matrix_lr, o.weight_decay, o.grad_clip) == (0.2, 0.004, 0.02, 0.0, 1.0)
    assert (o.embedding_betas, o.unembedding_betas) == ((0.8, 0.95), (0.8, 0.95))
    assert (o.embedding_weight_decay, o.unembedding_weight_decay) == (None, None)
    assert (o.matrix_weight_decay, o.orthogonalizer, o.normuon_beta2) == (0.0, "newton_schulz", None)
    assert (b.warmup_ratio, b.warmup_steps, b.final_lr_frac, b.horizon_params) == (0.0, None, 0.0, "all")
    assert not any((b.scale_lr, b.scale_weight_decay))
    assert (b.momentum, b.momentum_ramp_steps, b.final_momentum) == (0.95, 300, None)


def test_one_override_makes_modern_small_or_undoes_a_change() -> None:
    assert resolve("modern").base.total_batch_size == 2**20
    small = resolve("modern", {"model.depth": 8})
    assert (small.base.total_batch_size, small.model.n_embd, small.model.value_embeds) == (2**18, 512, True)
    assert resolve("modern", {"base.total_batch_size": 4096}).base.total_batch_size == 4096
    assert resolve(small.model_dump(mode="json")) == small
    assert not resolve("modern", {"model.value_embeds": False}).model.value_embeds
    with pytest.raises(RecipeError, match="even depth"):
        resolve("modern", {"model.depth": 11})


@pytest.mark.parametrize(("name", "depth", "shards"), [("speedrun", 20, 240), ("d26", 26, 450), ("run1000", 32, 800)])
def test_depths_and_shards_of_the_shipped_sizes(name: str, depth: int, shards: int) -> None:
    r = resolve(name)
    assert r.model.depth == depth
    assert r.data.source.kind == "http"
    assert r.data.source.train_shards == shards


def test_dotted_overrides_leave_other_fields_unchanged() -> None:
    r = resolve(
        "tiny", {"base.num_iterations": 7, "data.source": {"kind": "folder", "path": "/x"}, "mid.optim": {"matrix_lr": 0.01}}
    )
    assert r.base.num_iterations == 7
    assert r.data.source == recipe.FolderSource(path="/x")
    assert r.mid.optim.matrix_lr == 0.01
    assert r.mid.optim.grad_clip == 0.0
    assert r.base.device_batch_size == resolve("tiny").base.device_batch_size


@pytest.mark.parametrize(
    ("name", "overrides", "field", "says"),
    [
        ("nope", {}, "recipe", "known: "),
        ("tiny", {"base.colour": 1}, "base.colour", "unknown field"),
        ("tiny", {"base.num_iterations": "many"}, "base.num_iterations", "integer"),
        ("tiny", {"base.num_iterations": 0}, "base.num_iterations", "greater than 0"),
        ("tiny", {"base.total_batch_size": 1000}, "base.total_batch_size", "nearest that fit are 768 and 1024"),
        ("tiny", {"model.depth": 11}, "model", "use an even depth"),
        ("tiny", {"model.window_pattern": "SXL"}, "model.window_pattern", "pattern"),
        ("tiny", {"base.optim.normuon_beta2": 1.0}, "base.optim.normuon_beta2", "less than 1"),
        ("tiny", {"base.total_batch_size": "all"}, "base.total_batch_size", "integer"),
        ("tiny", {"data.source": {"kind": "ftp"}}, "data.source", "ftp"),
        ("tiny", {"data.source": {"kind": "http", "val_index": 3}}, "data.source", "val_index"),
        ("tiny", {"tokenizer.vocab_size": 100}, "tokenizer.vocab_size", "265"),
        ("tiny", {"name": "No Spaces"}, "name", "pattern"),
    ],
)
def test_bad_recipes_are_refused_with_the_field_and_what_to_do(name: str, overrides: dict, field: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(name, overrides)
    assert caught.value.problems[0][0] == field
    assert says in caught.value.problems[0][1]


def test_the_word_none_means_null() -> None:
    tiny = resolve("tiny")
    assert (tiny.data.tasks, tiny.data.core) == (None, None)
    assert resolve("speedrun", {"data.tasks": None}).data.tasks is None
    assert resolve("tiny", {"data.tasks": "/somewhere"}).data.tasks == "/somewhere"
