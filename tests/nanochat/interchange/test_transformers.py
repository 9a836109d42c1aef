"""What transformers does with an exported folder: the same logits, and the same tokens by `generate` as by our engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat.engine import Engine
from nanochat.engine.runner import narrow
from nanochat.interchange import hf
from nanochat.interchange.folder import Refused
from nanochat.interchange.leaving import to_hf
from nanochat.model import GPT
from tests.nanochat.interchange.conftest import EVERY_SWITCH, RECIPES, VOCAB, Sealed

pytestmark = pytest.mark.usefixtures("one_core")
FP32 = 3e-5  # logits lie in (-15, 15); the largest difference seen was 8e-6, because sums run in another order
BF16 = 0.15  # a bf16 number near 15 is within 1/16 of its neighbours
NATIVE = ("speedrun", "d26", "run1000")


def exported(source: Sealed, folder: Path, **options: Any) -> Path:
    to_hf(
        source.open(), folder, **{"dtype": None, "shard_bytes": hf.SHARD_BYTES, "remote_code": True, "force": False, **options}
    )
    return folder


def loaded(folder: Path, **options: Any) -> Any:
    """The model that transformers loads, after every tensor of the folder found its place."""
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, output_loading_info=True, **options)
    assert not any(info.values()), info
    return model.eval()


@pytest.fixture(scope="module")
def folders(sealed: Callable[[str], Sealed], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(recipe: str) -> Path:
        if recipe not in made:
            made[recipe] = exported(sealed(recipe), tmp_path_factory.mktemp("exported") / "hf")
        return made[recipe]

    return get


def some_ids(rows: int = 3, length: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("recipe", RECIPES)
def test_logits_are_equal_in_fp32(sealed: Callable[[str], Sealed], folders: Callable[[str], Path], recipe: str) -> None:
    theirs, ids = loaded(folders(recipe)), some_ids()
    assert type(theirs).__name__ == ("NanoChatForCausalLM" if recipe in NATIVE else "NanochatModernForCausalLM")
    assert theirs.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, sealed(recipe).logits(ids), atol=FP32, rtol=0)


@pytest.mark.parametrize("recipe", ["speedrun", EVERY_SWITCH])
def test_logits_are_those_of_our_model_in_bf16(sealed: Callable[[str], Sealed], tmp_path: Path, recipe: str) -> None:
    theirs, ids = loaded(exported(sealed(recipe), tmp_path / "hf", dtype=torch.bfloat16)), some_ids()
    assert theirs.dtype == torch.bfloat16
    ours = GPT(sealed(recipe).gpt.config)
    ours.load_state_dict(sealed(recipe).gpt.state_dict())
    with torch.no_grad():
        expected = narrow(ours, torch.bfloat16)(ids)
        torch.testing.assert_close(theirs(ids).logits.float(), expected, atol=BF16, rtol=0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_generate_gives_the_tokens_of_our_engine(
    sealed: Callable[[str], Sealed], folders: Callable[[str], Path], recipe: str
) -> None:
    """Prompts of several lengths: each alone, and together in a left-padded batch. Both end at the same tokens."""
    theirs, ours = loaded(folders(recipe)), sealed(recipe)
    engine = Engine(ours.gpt, ours.tokenizer, dtype=torch.float32)
    prompts = [row[: 3 + 5 * i].tolist() for i, row in enumerate(some_ids(4))]
    expected = [engine.generate_batch(prompt, max_tokens=24, temperature=0.0)[0][0] for prompt in prompts]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    together = theirs.generate(ids, attention_mask=mask, max_new_tokens=24, do_sample=False)
    for prompt, batched, answer in zip(prompts, together, expected, strict=True):
        alone = theirs.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)
        for found in (alone[0, len(prompt) :], batched[longest:]):
            assert cut(found.tolist(), theirs.generation_config.eos_token_id) == cut(
                answer, theirs.generation_config.eos_token_id
            )


def cut(tokens: list[int], ends: list[int]) -> list[int]:
    return tokens[: next((at for at, token in enumerate(tokens) if token in ends), len(tokens))]


def test_our_own_code_caches_what_it_would_compute(folders: Callable[[str], Path]) -> None:
    """In steps of several tokens, and with beams, whose cache is reordered."""
    theirs, ids = loaded(folders(EVERY_SWITCH)), some_ids(2)
    name = "cache" if "cache" in theirs(ids).keys() else "past_key_values"  # noqa: SIM118 (an output iterates over its keys)
    with torch.no_grad():
        whole, held, parts = theirs(ids).logits, None, []
        for part in ids.split((7, 1, 20, 12), dim=1):
            out = theirs(part, **{name: held}, use_cache=True)
            held = out[name]
            parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=FP32, rtol=0)
    beams = [
        theirs.generate(ids[:1, :9], max_new_tokens=16, num_beams=3, use_cache=cached).tolist() for cached in (True, False)
    ]
    assert beams[0] == beams[1]


def test_our_own_code_has_the_loss_of_the_next_token(folders: Callable[[str], Path]) -> None:
    theirs, ids = loaded(folders(EVERY_SWITCH)), some_ids(2)
    out = theirs(ids, labels=ids)
    expected = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(out.loss, expected)
    out.loss.backward()
    assert all(parameter.grad is not None for parameter in theirs.parameters())


@pytest.mark.parametrize("recipe", ["speedrun", EVERY_SWITCH])
def test_shards_load_like_one_file(sealed: Callable[[str], Sealed], tmp_path: Path, recipe: str) -> None:
    folder = exported(sealed(recipe), tmp_path / "hf", shard_bytes=150_000)
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) > 2
    assert all((folder / file).stat().st_size < 160_000 for file in files)
    ids = some_ids(1)
    with torch.no_grad():
        torch.testing.assert_close(loaded(folder)(ids).logits, sealed(recipe).logits(ids), atol=FP32, rtol=0)


def test_a_model_in_memory_is_written_by_one_call(sealed: Callable[[str], Sealed], tmp_path: Path) -> None:
    """What benchmarks use. Without a tokenizer nothing ends a generation early."""
    hf.write(sealed("speedrun").gpt, None, tmp_path / "hf", dtype=torch.bfloat16)
    theirs = loaded(tmp_path / "hf", dtype=torch.float32)
    assert theirs.generate(some_ids(1, 5), max_new_tokens=30, do_sample=False).shape == (1, 35)


def test_a_recipe_beyond_the_native_class_is_refused_by_name_without_remote_code(
    sealed: Callable[[str], Sealed], tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=r"it has residual_scalars, value_embeds, qk_scale, smear, backout\. Leave out"):
        exported(sealed("modern"), tmp_path / "hf", remote_code=False)
    assert not list(tmp_path.iterdir())
    exported(sealed("speedrun"), tmp_path / "hf", remote_code=False)
