"""Folders read back: bit for bit where we wrote them, with equal logits where transformers did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nanochat.contract.contract import artifact_at, verify
from nanochat.interchange import hf
from nanochat.interchange.arriving import Arrival, write
from nanochat.interchange.leaving import to_hf, to_safetensors
from nanochat.tokenizer import Tokenizer
from nanochat.train.checkpoint import load_model
from tests.nanochat.interchange.conftest import EVERY_SWITCH, RECIPES, VOCAB, Sealed
from tests.nanochat.interchange.test_transformers import FP32, loaded, some_ids

pytestmark = pytest.mark.usefixtures("one_core")


def arrived(folder: Path, out: Path) -> tuple[Any, Tokenizer]:
    """Import a folder, and load what came of it as the inference service does."""
    write(Arrival.open(folder), out, force=False)
    tokenizer = verify(artifact_at(out / "tokenizer"))
    model, meta = load_model(verify(artifact_at(out / "model")), "cpu")
    assert meta["tokenizer_sha256"] == artifact_at(tokenizer).sha256
    return model.eval(), Tokenizer.load(tokenizer)


def assert_same_bits(one: Path, other: Path) -> None:
    ours, theirs = load_file(one), load_file(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor.reshape(-1).view(torch.uint8), theirs[name].reshape(-1).view(torch.uint8)), name


@pytest.mark.parametrize("shard_bytes", [hf.SHARD_BYTES, 100_000])
@pytest.mark.parametrize("kind", ["hf", "safetensors"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_leaving_and_coming_back_changes_no_bit(
    sealed: Callable[[str], Sealed], tmp_path: Path, recipe: str, kind: str, shard_bytes: int
) -> None:
    source, away, back = sealed(recipe), tmp_path / "away", tmp_path / "back"
    options: Any = {"dtype": None, "shard_bytes": shard_bytes, "force": False}
    if kind == "hf":
        to_hf(source.open(), away, remote_code=True, **options)
    else:
        to_safetensors(source.open(), away, **options)
    model, tokenizer = arrived(away, back)
    assert model.config == source.gpt.config
    assert_same_bits(source.model_dir / "model.safetensors", back / "model/model.safetensors")
    assert (back / "tokenizer/tokenizer.json").read_bytes() == (source.tokenizer_dir / "tokenizer.json").read_bytes()
    assert tokenizer.encode("fox 12") == source.tokenizer.encode("fox 12")


def test_bf16_leaves_and_comes_back_as_bf16(sealed: Callable[[str], Sealed], tmp_path: Path) -> None:
    source = sealed(EVERY_SWITCH)
    to_safetensors(source.open(), tmp_path / "away", dtype=torch.bfloat16, shard_bytes=10**9, force=False)
    arrived(tmp_path / "away", tmp_path / "back")
    weights = load_file(tmp_path / "back/model/model.safetensors")
    for name, tensor in load_file(source.model_dir / "model.safetensors").items():
        expected = tensor.bfloat16() if tensor.dim() >= 2 else tensor
        assert torch.equal(weights[name], expected), name


# -- folders that transformers wrote --


@pytest.fixture(scope="module")
def foreign(sealed: Callable[[str], Sealed], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Path]]:
    """`foreign(**config)` is a new NanoChatForCausalLM and the folder that its save_pretrained wrote, with our tokenizer's files."""

    def make(*, shard: str = "5GB", dtype: torch.dtype = torch.float32, **config: Any) -> tuple[Any, Path]:
        from transformers import NanoChatConfig, NanoChatForCausalLM

        shape = {"vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3}
        torch.manual_seed(3)
        model = NanoChatForCausalLM(
            NanoChatConfig(
                **{**shape, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, **config}
            )
        )
        folder = tmp_path_factory.mktemp("foreign") / "hf"
        model.to(dtype).save_pretrained(folder, max_shard_size=shard)
        hf.write_tokenizer(folder, sealed("speedrun").tokenizer, 64)
        return model.eval(), folder

    return make


@pytest.mark.parametrize(
    "config",
    [
        {},  # initialised as transformers does, with its epsilon of 1e-6
        {"shard": "100KB", "num_key_value_heads": 4},
        {"rms_norm_eps": hf.EPS, "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
    ],
    ids=["defaults", "shards", "our epsilon, another base"],
)
def test_a_model_of_transformers_has_equal_logits_here(foreign: Any, tmp_path: Path, config: dict[str, Any]) -> None:
    theirs, folder = foreign(**config)
    ours, _ = arrived(folder, tmp_path / "back")
    ids = some_ids()
    with torch.no_grad():
        expected = theirs(ids).logits
        assert expected.std() > 0.01
        torch.testing.assert_close(ours(ids), expected, atol=1e-6, rtol=1e-5)


def test_a_folder_that_transformers_saved_again_comes_back(sealed: Callable[[str], Sealed], tmp_path: Path) -> None:
    """Both kinds of exported model, loaded and saved by transformers."""
    for recipe in ("speedrun", EVERY_SWITCH):
        away, again = tmp_path / f"{recipe} away", tmp_path / f"{recipe} again"
        to_hf(sealed(recipe).open(), away, dtype=None, shard_bytes=10**9, remote_code=True, force=False)
        from transformers import AutoTokenizer

        loaded(away).save_pretrained(again)
        AutoTokenizer.from_pretrained(away, trust_remote_code=True).save_pretrained(again)
        arrived(again, tmp_path / f"{recipe} back")
        assert_same_bits(
            sealed(recipe).model_dir / "model.safetensors", tmp_path / f"{recipe} back" / "model/model.safetensors"
        )


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], **config: Any) -> Path:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


def fused(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    layers = {name.removesuffix("q_proj.weight") for name in tensors if name.endswith("q_proj.weight")}
    for layer in layers:
        tensors[f"{layer}qkv_proj.weight"] = torch.cat([tensors.pop(f"{layer}{part}_proj.weight") for part in "qkv"])
    return tensors


def of_nanochat(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = {
        "model.embed_tokens": "transformer.wte",
        "model.layers": "transformer.h",
        "self_attn.o_proj": "attn.c_proj",
        "self_attn.q_proj": "attn.c_q",
        "self_attn.k_proj": "attn.c_k",
        "self_attn.v_proj": "attn.c_v",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for theirs, nanochats in names.items():
        tensors = {name.replace(theirs, nanochats): tensor for name, tensor in tensors.items()}
    return tensors


def padded(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    tables = ("model.embed_tokens.weight", "lm_head.weight")
    more = torch.ones(448 - VOCAB, 64)
    return {name: torch.cat((tensor, more)) if name in tables else tensor for name, tensor in tensors.items()}


def tied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    del tensors["lm_head.weight"]
    return tensors


@pytest.mark.parametrize(
    ("change", "config"),
    [(fused, {}), (of_nanochat, {}), (padded, {"vocab_size": 448}), (tied, {"tie_word_embeddings": True})],
)
def test_other_spellings_of_the_weights_are_understood(foreign: Any, tmp_path: Path, change: Any, config: Any) -> None:
    """q, k and v in one tensor; nanochat's names; a vocabulary padded to a multiple of 64, whose rows are cut off; a tied head."""
    theirs, folder = foreign(rms_norm_eps=hf.EPS)
    if change is tied:
        theirs.lm_head.weight = theirs.model.embed_tokens.weight
    ours, tokenizer = arrived(rewritten(folder, change, **config), tmp_path / "back")
    assert ours.config.vocab_size == tokenizer.vocab_size == VOCAB
    ids = some_ids()
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=FP32, rtol=0)
