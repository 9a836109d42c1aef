"""Bad input is refused with a message that names the file and what to do, and leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

import rustbpe
from nanochat.__main__ import Exit
from nanochat.contract.contract import MANIFEST, seal
from nanochat.interchange import __main__ as command
from nanochat.interchange import folder, hf
from nanochat.tokenizer import Tokenizer
from tests.nanochat.conftest import CORPUS
from tests.nanochat.interchange.conftest import EVERY_SWITCH, Sealed

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture
def good(sealed: Callable[[str], Sealed], tmp_path: Path) -> Path:
    """A folder that can be imported. Each test damages its own."""
    target = tmp_path / "in" / "good"
    hf.write(sealed("speedrun").gpt, sealed("speedrun").tokenizer, target)
    return target


def refusal(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Run the command, which must refuse. Returns what it says, on one line."""
    assert command.main(list(map(str, args))) == Exit.BAD_INPUT
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    return said.err


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(good: Path) -> None:
        tensors = load_file(good / "model.safetensors")
        change(tensors)
        save_file(tensors, good / "model.safetensors", {"format": "pt"})

    return damage


def config(**changes: Any) -> Callable[[Path], None]:
    def damage(good: Path) -> None:
        described = {**json.loads((good / "config.json").read_text()), **changes}
        (good / "config.json").write_text(json.dumps({k: v for k, v in described.items() if v != "gone"}))

    return damage


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda good: (good / name).write_text(content) and None


def gone(name: str) -> Callable[[Path], None]:
    return lambda good: (good / name).unlink()


def truncated(good: Path) -> None:
    os.truncate(good / "model.safetensors", (good / "model.safetensors").stat().st_size - 100)


def pickled(good: Path) -> None:
    (good / "model.safetensors").rename(good / "pytorch_model.bin")


def other_tokenizer(good: Path) -> None:
    smaller = Tokenizer.from_merges(rustbpe.train(CORPUS, 260))
    (good / "tokenizer.json").write_text(smaller.bpe.to_hf_json())


def without_turns(good: Path) -> None:
    plain = rustbpe.train(CORPUS, 390).with_special_tokens(["<|endoftext|>"])
    (good / "tokenizer.json").write_text(plain.to_hf_json())


def half_a_set(good: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (good / "model.safetensors.index.json").write_text(json.dumps(index))


def climbing(good: Path) -> None:
    (good / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": "../model.safetensors"}}))


class Bad(NamedTuple):
    damage: Callable[[Path], None]
    file: str
    said: str


BAD = {
    "no config": Bad(gone("config.json"), "", "has neither config.json nor nanochat.json"),
    "no weights": Bad(gone("model.safetensors"), "", "has no weights: it needs model.safetensors"),
    "no tokenizer": Bad(gone("tokenizer.json"), "tokenizer.json", "does not exist"),
    "truncated weights": Bad(truncated, "model.safetensors", "cannot be read"),
    "pickle": Bad(pickled, "pytorch_model.bin", "is a pickle, which can run any program"),
    "a shard missing": Bad(half_a_set, "model-00001-of-00002.safetensors", "cannot be read"),
    "a shard elsewhere": Bad(climbing, "model.safetensors.index.json", "no weight_map of file names"),
    "config is no JSON": Bad(text("config.json", "{"), "config.json", "copy it from the source again"),
    "config is a list": Bad(text("config.json", "[]"), "config.json", "is not a JSON object"),
    "architecture": Bad(config(model_type="llama"), "config.json", "the architecture 'llama' is unknown"),
    "no width": Bad(config(hidden_size="gone"), "config.json", "lacks the field 'hidden_size'"),
    "width of text": Bad(config(hidden_size="64"), "config.json", "hidden_size is '64'; expected a whole number"),
    "heads": Bad(config(num_attention_heads=3), "config.json", "do not fit"),
    "activation": Bad(config(hidden_act="silu"), "config.json", "hidden_act is 'silu'"),
    "rotary": Bad(config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}), "config.json", "rope_type is 'yarn'"),
    "cap": Bad(config(final_logit_softcapping=None), "config.json", "final_logit_softcapping is None"),
    "epsilon": Bad(config(rms_norm_eps=0.1), "config.json", "rms_norm_eps is 0.1"),
    "vocabulary": Bad(
        config(vocab_size=401), "model.safetensors", "has the shape [400, 64]; the configuration asks for [401, 64]"
    ),
    "more layers": Bad(
        config(num_hidden_layers=5), "", "('model.layers.4.self_attn.q_proj.weight' in transformers) is missing"
    ),
    "fewer layers": Bad(config(num_hidden_layers=3), "model.safetensors", "is in no model of this configuration"),
    "no head": Bad(weights(lambda t: t.pop("lm_head.weight")), "", "save the NanoChatForCausalLM, not its .model"),
    "shape": Bad(
        weights(lambda t: t.update({"model.layers.1.mlp.fc1.weight": torch.zeros(256, 32)})),
        "model.safetensors",
        "'blocks.1.mlp.up.weight' ('model.layers.1.mlp.fc1.weight' in transformers) has the shape [256, 32]",
    ),
    "quantized": Bad(
        weights(lambda t: t.update({"lm_head.weight": torch.zeros(400, 64, dtype=torch.int8)})),
        "model.safetensors",
        "the tensor 'lm_head.weight' has the dtype I8; expected one of F32, BF16, F16",
    ),
    "tokenizer of another run": Bad(other_tokenizer, "tokenizer.json", "has 269 tokens, but the model has 400"),
    "tokenizer without turns": Bad(without_turns, "tokenizer.json", "lacks the special token '<|bos|>'"),
    "tokenizer of another kind": Bad(text("tokenizer.json", "{}"), "tokenizer.json", "cannot be used"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_is_refused_by_name(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    bad = BAD[name]
    bad.damage(good)
    said = refusal(capsys, "import", good, tmp_path / "out")
    assert str(good / bad.file) in said
    assert bad.said in said
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_modern_folder_with_a_wrong_switch_is_refused(
    sealed: Callable[[str], Sealed], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    hf.write(sealed(EVERY_SWITCH).gpt, sealed(EVERY_SWITCH).tokenizer, folder)
    for field, value, wanted in (("smear", "yes", "expected bool"), ("window_pattern", "SX", "the letters S and L")):
        before = (folder / "config.json").read_text()
        config(**{field: value})(folder)
        assert wanted in refusal(capsys, "import", folder, tmp_path / "out")
        (folder / "config.json").write_text(before)


def test_what_is_no_folder_is_refused(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], sealed: Any) -> None:
    file = good / "config.json"
    assert f"{file} is a file" in refusal(capsys, "import", file, tmp_path / "out")
    assert "is not there" in refusal(capsys, "import", tmp_path / "nowhere", tmp_path / "out")
    assert f"{file} is a file" in refusal(capsys, "import", good, file)
    assert "can be served as it is" in refusal(capsys, "import", sealed("speedrun").model_dir, tmp_path / "out")


def test_a_folder_with_content_is_replaced_only_by_force(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert command.main(["import", str(good), str(out)]) == Exit.OK  # an empty folder is as good as none
    (out / "mine").write_text("precious")
    assert "is not empty" in refusal(cleared(capsys), "import", good, out)
    assert (out / "mine").exists()
    assert command.main(["import", "--force", str(good), str(out)]) == Exit.OK
    assert sorted(path.name for path in out.iterdir()) == ["model", "tokenizer"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def cleared(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    capsys.readouterr()
    return capsys


def test_the_current_directory_is_not_replaced(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "holds the current directory" in refusal(capsys, "import", "--force", good, ".")


def test_what_is_read_is_not_replaced(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"holds {good}, which is read" in refusal(capsys, "import", "--force", good, good)
    assert f"holds {good}, which is read" in refusal(capsys, "import", "--force", good, tmp_path)
    assert good.is_dir()


# -- export --


def export(source: Sealed, out: Path, *options: str, **changes: Path) -> list[str]:
    model, tokenizer = changes.get("model", source.model_dir), changes.get("tokenizer", source.tokenizer_dir)
    return ["export", "--to", "hf", "--model", str(model), "--tokenizer", str(tokenizer), *options, str(out)]


def test_gguf_is_refused_with_the_reason(
    sealed: Callable[[str], Sealed], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, *export(sealed("speedrun"), tmp_path / "out", "--to", "gguf"))
    assert "llama.cpp" in said
    assert "--to hf or --to safetensors" in said


def test_bad_sources_are_refused(sealed: Callable[[str], Sealed], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = sealed("speedrun"), tmp_path / "out"
    assert "is not a sealed artifact" in refusal(capsys, *export(source, out, model=tmp_path))
    assert "is not a sealed artifact" in refusal(capsys, *export(source, out, tokenizer=tmp_path / "nowhere"))
    other = tmp_path / "other"
    Tokenizer.from_merges(rustbpe.train(CORPUS, 260)).save(other)
    seal(other)
    assert "was trained with another tokenizer" in refusal(capsys, *export(source, out, tokenizer=other))
    damaged = tmp_path / "damaged"
    shutil.copytree(source.model_dir, damaged)
    os.truncate(damaged / "model.safetensors", 1000)
    assert f"{damaged / 'model.safetensors'} is missing or not what its manifest says" in refusal(
        capsys, *export(source, out, model=damaged)
    )
    (damaged / MANIFEST).unlink()
    seal(damaged)
    assert f"{damaged / 'model.safetensors'} cannot be read" in refusal(capsys, *export(source, out, model=damaged))
    assert not out.exists()


# -- disks --


def test_a_disk_without_room_is_refused_before_anything_is_written(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 90, 10))
    said = refusal(capsys, "import", good, tmp_path / "out")
    assert "not enough space" in said
    assert "10 are free" in said
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_that_fills_up_leaves_nothing(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert command.main(["import", str(good), str(out)]) == Exit.OK
    cleared(capsys)
    before = sorted(path.name for path in out.rglob("*"))

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(folder, "sync", full)  # what a disk says that was full when the kernel came to write
    said = refusal(capsys, "import", "--force", good, out)
    assert "the disk filled up while it was written" in said
    assert sorted(path.name for path in out.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
