"""The folder that `transformers` loads: `NanoChatForCausalLM` where it can express the model, otherwise with code of our own."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from nanochat.config.shape import HF_NAMES, GPTConfig
from nanochat.interchange import names, tensors
from nanochat.interchange.folder import Refused, appearing
from nanochat.interchange.tensors import Lazy, Tensors
from nanochat.model import GPT
from nanochat.model.layers import EPS
from nanochat.model.loss import SOFTCAP
from nanochat.tokenizer import FILE, Tokenizer

SHARD_BYTES = 5 * 10**9
CONFIG, GENERATION, TOKENIZER_CONFIG, TEMPLATE = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
NATIVE, MODERN = "nanochat", "nanochat_modern"
ENDS = ("<|assistant_end|>", "<|bos|>")  # the engine ends an answer at either
HERE = Path(__file__).parent
CODE = ("configuration_nanochat_modern.py", "modeling_nanochat_modern.py")

# Switch that `NanoChatForCausalLM` lacks -> its value without effect.
SWITCHES = {
    field.name: field.default
    for field in fields(GPTConfig)
    if field.name not in HF_NAMES and field.name not in ("rope_base", "window")
}


def write(
    model: GPT, tokenizer: Tokenizer | None, folder: Path, *, dtype: torch.dtype | None = None, force: bool = False
) -> None:
    """Write a model in memory to `folder`. `dtype` None keeps that of the weights.

    Without a tokenizer the folder has the model only. Raises Refused as `folder.appearing`.
    """
    weights = {name: Lazy.of(tensor) for name, tensor in model.state_dict().items()}
    weights = {name: cast(tensor, dtype) for name, tensor in weights.items()}
    with appearing(folder, tensors.nbytes(weights), force=force) as draft:
        fill(draft, model.config, weights, tokenizer)


def fill(draft: Path, config: GPTConfig, weights: Tensors, tokenizer: Tokenizer | None, shard_bytes: int = SHARD_BYTES) -> None:
    """Write every file of the folder. `weights` have our names."""
    extra = beyond_native(config)
    dtype = str(weights["embed.weight"].dtype).removeprefix("torch.")
    special = _special_ids(tokenizer)
    description = {**(_modern(config) if extra else _native(config)), "dtype": dtype, **special, "pad_token_id": None}
    _write(draft / CONFIG, description)
    _write(draft / GENERATION, {**special, "pad_token_id": special["eos_token_id"][0] if tokenizer else None})
    if tokenizer:
        write_tokenizer(draft, tokenizer, config.sequence_len)
    for file in CODE if extra else ():
        shutil.copyfile(HERE / "remote" / file, draft / file)
    tensors.write(draft, weights if extra else names.to_native(weights), shard_bytes)


def beyond_native(config: GPTConfig) -> list[str]:
    """The switches of a model that `NanoChatForCausalLM` cannot express."""
    return [name for name, default in SWITCHES.items() if getattr(config, name) != default]


def cast(tensor: Lazy, dtype: torch.dtype | None) -> Lazy:
    """Cast matrices only: the few scalars of a model stay as they are, since rounding one would rescale a whole layer."""
    return tensor if dtype is None or tensor.dtype == dtype or len(tensor.shape) < 2 else tensor.to(dtype)


def write_tokenizer(draft: Path, tokenizer: Tokenizer, context: int) -> None:
    (draft / FILE).write_text(tokenizer.bpe.to_hf_json(), encoding="utf-8")
    _write(
        draft / TOKENIZER_CONFIG,
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|bos|>",
            "eos_token": ENDS[0],
            "pad_token": ENDS[0],
            "padding_side": "left",
            "model_max_length": context,
            "clean_up_tokenization_spaces": False,
        },
    )
    shutil.copyfile(HERE / TEMPLATE, draft / TEMPLATE)


def config_of(description: dict[str, Any], where: Path) -> tuple[GPTConfig, float]:
    """The configuration that a `config.json` describes, and its norms' epsilon. Raises Refused for what our model cannot express."""
    kind = description.get("model_type")
    if kind not in (NATIVE, MODERN):
        raise Refused(
            f"{where}: the architecture {kind!r} is unknown; expected model_type {NATIVE!r} (NanoChatForCausalLM) or {MODERN!r}"
            " (exported by this program). Other architectures cannot be imported"
        )
    try:
        values = {ours: description[theirs] for ours, theirs in HF_NAMES.items() if theirs != "num_key_value_heads"}
    except KeyError as err:
        raise Refused(f"{where} lacks the field {err}: copy it from the source again") from err
    values["n_kv_head"] = description.get("num_key_value_heads") or values["n_head"]
    wrong = {name: value for name, value in values.items() if type(value) is not int or value < 1}
    if wrong:
        name, value = next(iter(wrong.items()))
        raise Refused(f"{where}: {HF_NAMES[name]} is {value!r}; expected a whole number above 0")
    if (
        values["n_embd"] % values["n_head"]
        or values["n_head"] % values["n_kv_head"]
        or values["n_embd"] // values["n_head"] % 2
    ):
        raise Refused(
            f"{where}: hidden_size {values['n_embd']}, num_attention_heads {values['n_head']} and num_key_value_heads"
            f" {values['n_kv_head']} do not fit: heads divide the width into even parts, and key-value heads divide the heads"
        )
    if kind == MODERN:
        return GPTConfig(**values, **_switches(description, where)), EPS
    _check_native(description, values["n_embd"], where)
    rope = description.get("rope_parameters") or {"rope_theta": description.get("rope_theta", 10_000.0)}
    return GPTConfig(**values, rope_base=float(rope["rope_theta"])), float(description.get("rms_norm_eps", 1e-6))


def _check_native(description: dict[str, Any], width: int, where: Path) -> None:
    rope = description.get("rope_parameters") or {}
    found = {
        "hidden_act": (description.get("hidden_act", "relu2"), "relu2"),
        "attention_bias": (description.get("attention_bias", False), False),
        "final_logit_softcapping": (description.get("final_logit_softcapping", SOFTCAP), SOFTCAP),
        "intermediate_size": (description.get("intermediate_size", 8192), 4 * width),
        "rope_parameters.rope_type": (rope.get("rope_type", "default"), "default"),
        "head_dim": (
            description.get("head_dim") or width // description["num_attention_heads"],
            width // description["num_attention_heads"],
        ),
    }
    for name, (value, wanted) in found.items():
        if value != wanted:
            raise Refused(f"{where}: {name} is {value!r}; this program's model has {wanted!r}, so its logits would differ")
    eps = description.get("rms_norm_eps", 1e-6)
    if not isinstance(eps, float) or not 0 < eps <= 1e-5:
        raise Refused(f"{where}: rms_norm_eps is {eps!r}; at most 1e-5 can be imported with equal logits")


def _switches(description: dict[str, Any], where: Path) -> dict[str, Any]:
    wanted = {name: type(default) for name, default in {**SWITCHES, "rope_base": 1.0, "window": 0}.items()}
    found: dict[str, Any] = {}
    for name, kind in wanted.items():
        value = description.get(name)
        value = float(value) if kind is float and type(value) is int else value
        if type(value) is not kind:
            raise Refused(f"{where}: {name} is {value!r}; expected {kind.__name__}. Copy the file from the source again")
        found[name] = value
    if not found["window_pattern"] or set(found["window_pattern"]) - {"S", "L"}:
        raise Refused(f"{where}: window_pattern is {found['window_pattern']!r}; expected the letters S and L")
    return found


def _native(config: GPTConfig) -> dict[str, Any]:
    return {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": NATIVE,
        **_shape(config),
        "intermediate_size": 4 * config.n_embd,
        "hidden_act": "relu2",
        "rms_norm_eps": EPS,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "final_logit_softcapping": SOFTCAP,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
    }


def _modern(config: GPTConfig) -> dict[str, Any]:
    others = {name: value for name, value in asdict(config).items() if name not in HF_NAMES}
    return {
        "architectures": ["NanochatModernForCausalLM"],
        "model_type": MODERN,
        "auto_map": {
            "AutoConfig": "configuration_nanochat_modern.NanochatModernConfig",
            "AutoModelForCausalLM": "modeling_nanochat_modern.NanochatModernForCausalLM",
        },
        **_shape(config),
        **others,
        "tie_word_embeddings": False,
    }


def _shape(config: GPTConfig) -> dict[str, Any]:
    return {theirs: getattr(config, ours) for ours, theirs in HF_NAMES.items()}


def _special_ids(tokenizer: Tokenizer | None) -> dict[str, Any]:
    if tokenizer is None:
        return {"bos_token_id": None, "eos_token_id": None}
    return {"bos_token_id": tokenizer.bos, "eos_token_id": [tokenizer.special(name) for name in ENDS]}


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
