"""A sealed checkpoint as a folder for other programs."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nanochat.config.shape import GPTConfig
from nanochat.contract.contract import artifact_at, verify, write_json
from nanochat.interchange import hf, names, tensors
from nanochat.interchange.folder import Refused, appearing
from nanochat.interchange.tensors import Lazy
from nanochat.tokenizer import FILE, Tokenizer
from nanochat.train.checkpoint import load_config

PLAIN = "nanochat.json"  # the configuration of the plain format
VERSION = 1
GGUF = (
    "gguf is not written: no architecture of llama.cpp gives this model's logits, which need a norm of the embedding, normed"
    " queries and keys, a squared relu and a soft cap together."
    " Use --to hf or --to safetensors; docs/interchange.md says what gguf waits for"
)


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint and its tokenizer, both verified against their manifests. Tensors are read when they are needed."""

    config: GPTConfig
    weights: dict[str, Lazy]
    tokenizer: Tokenizer
    tokenizer_file: Path
    made_by: dict[str, object]  # stage and step

    @classmethod
    def open(cls, model: Path, tokenizer: Path) -> Source:
        """Raises StageError or Refused, naming the file, if something is missing or damaged or the two do not belong together."""
        made_with, checkpoint = artifact_at(tokenizer), artifact_at(model)
        config, meta = load_config(verify(checkpoint))
        loaded = Tokenizer.load(verify(made_with))
        if meta.get("tokenizer_sha256", made_with.sha256) != made_with.sha256 or loaded.vocab_size != config.vocab_size:
            raise Refused(
                f"{model} was trained with another tokenizer than {tokenizer} ({config.vocab_size:,} tokens in the model,"
                f" {loaded.vocab_size:,} in the tokenizer): give the tokenizer of the same run"
            )
        weights = tensors.read(model)
        names.check(weights, config, str(model))
        made_by = {key: meta.get(key) for key in ("stage", "step")}
        return cls(config, weights, loaded, tokenizer / FILE, made_by)

    def cast(self, dtype: torch.dtype | None) -> dict[str, Lazy]:
        return {name: hf.cast(tensor, dtype) for name, tensor in self.weights.items()}


def to_hf(source: Source, target: Path, *, dtype: torch.dtype | None, shard_bytes: int, remote_code: bool, force: bool) -> None:
    """Write the folder that `transformers` loads. Raises Refused if it would need code of our own and `remote_code` is False."""
    beyond = hf.beyond_native(source.config)
    if beyond and not remote_code:
        raise Refused(
            f"NanoChatForCausalLM cannot express this model: it has {', '.join(beyond)}."
            " Leave out --no-remote-code, which adds the model's code to the folder, or use --to safetensors"
        )
    weights = source.cast(dtype)
    with appearing(target, tensors.nbytes(weights), force=force) as draft:
        hf.fill(draft, source.config, weights, source.tokenizer, shard_bytes)


def to_safetensors(source: Source, target: Path, *, dtype: torch.dtype | None, shard_bytes: int, force: bool) -> None:
    """Write the weights under our names, our configuration, and our tokenizer's file."""
    weights = source.cast(dtype)
    with appearing(target, tensors.nbytes(weights), force=force) as draft:
        described = {"format": "nanochat", "version": VERSION, **source.made_by, "model_config": asdict(source.config)}
        write_json(draft / PLAIN, described)
        shutil.copyfile(source.tokenizer_file, draft / FILE)
        tensors.write(draft, weights, shard_bytes)
