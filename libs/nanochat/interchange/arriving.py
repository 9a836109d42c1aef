"""A folder of another program as a sealed checkpoint and its tokenizer, which the inference service serves."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

import rustbpe
from nanochat.config.shape import GPTConfig
from nanochat.contract.contract import StageError, seal, write_json
from nanochat.interchange import hf, names, tensors
from nanochat.interchange.folder import Refused, appearing
from nanochat.interchange.leaving import PLAIN, VERSION
from nanochat.interchange.tensors import Lazy
from nanochat.model.layers import EPS
from nanochat.tokenizer import FILE, Tokenizer
from nanochat.train.checkpoint import FORMAT, META, MODEL

PADDING = 128  # fewer rows than this after the last token are padding of the vocabulary, which is cut off
STAGE = "import"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A folder's content under our names, checked by its headers. The data of the tensors are not read yet."""

    config: GPTConfig
    weights: dict[str, Lazy]
    tokenizer: Tokenizer

    @classmethod
    def open(cls, folder: Path) -> Arrival:
        """Read a folder that `nanochat export` or `NanoChatForCausalLM.save_pretrained` wrote. Raises Refused, naming the file."""
        if not folder.is_dir():
            raise Refused(f"{folder} is {'a file' if folder.exists() else 'not there'}: give the folder that holds the model")
        if (folder / PLAIN).is_file():
            return cls._plain(folder)
        if (folder / hf.CONFIG).is_file():
            return cls._of_transformers(folder)
        if (folder / META).is_file():
            raise Refused(f"{folder} is a checkpoint of this program: it can be served as it is")
        raise Refused(
            f"{folder} has neither {hf.CONFIG} nor {PLAIN}: give a folder that `nanochat export` or save_pretrained wrote"
        )

    @classmethod
    def _plain(cls, folder: Path) -> Arrival:
        described = tensors.read_json(folder / PLAIN)
        if described.get("version") != VERSION:
            raise Refused(f"{folder / PLAIN} has version {described.get('version')!r}; this program reads {VERSION}")
        try:
            config = GPTConfig(**described["model_config"])
        except (KeyError, TypeError) as err:
            raise Refused(f"{folder / PLAIN} does not describe a model of this program: {err}. Export it again") from err
        try:
            tokenizer = Tokenizer.load(folder)
        except StageError as err:
            raise Refused(f"{err}. Copy it from the source again") from err
        return cls(config, tensors.read(folder), tokenizer)._checked(folder)

    @classmethod
    def _of_transformers(cls, folder: Path) -> Arrival:
        description = tensors.read_json(folder / hf.CONFIG)
        config, eps = hf.config_of(description, folder / hf.CONFIG)
        weights = tensors.read(folder)
        if description["model_type"] == hf.NATIVE:
            weights = names.from_native(weights, config)
            if description.get("tie_word_embeddings") and "embed.weight" in weights:
                weights.setdefault("lm_head.weight", weights["embed.weight"])
        return cls(config, _with_our_epsilon(weights, eps), _tokenizer(folder))._checked(folder)

    def _checked(self, folder: Path) -> Arrival:
        names.check(self.weights, self.config, str(folder))
        padding = self.config.vocab_size - self.tokenizer.vocab_size
        if not 0 <= padding < PADDING:
            raise Refused(
                f"{folder / FILE} has {self.tokenizer.vocab_size:,} tokens, but the model has {self.config.vocab_size:,}:"
                " the tokenizer is of another model. Put the one beside the weights that the model was trained with"
            )
        if not padding:
            return self
        rows = self.tokenizer.vocab_size
        tables = {
            name for name in self.weights if name in ("embed.weight", "lm_head.weight") or name.startswith("value_embeds.")
        }
        cut = {name: tensor.rows(0, rows) if name in tables else tensor for name, tensor in self.weights.items()}
        return Arrival(replace(self.config, vocab_size=rows), cut, self.tokenizer)


def write(arrival: Arrival, target: Path, *, force: bool) -> None:
    """Write `model/` and `tokenizer/` below `target`, both sealed. Raises Refused as `appearing`."""
    with appearing(target, tensors.nbytes(arrival.weights), force=force) as draft:
        arrival.tokenizer.save(draft / "tokenizer")
        tokenizer = seal(draft / "tokenizer", name="tokenizer", stage=STAGE)
        model = draft / "model"
        model.mkdir()
        save_file({name: tensor.load() for name, tensor in arrival.weights.items()}, model / MODEL)
        meta = {"format": FORMAT, "step": 0, "stage": STAGE, "model_config": asdict(arrival.config), "score": None}
        write_json(model / META, {**meta, "tokenizer_sha256": tokenizer.sha256})
        seal(model, name="model", stage=STAGE)


def _tokenizer(folder: Path) -> Tokenizer:
    path = folder / FILE
    try:
        return Tokenizer(rustbpe.Tokenizer.from_hf_json(path.read_text(encoding="utf-8")))
    except FileNotFoundError as err:
        raise Refused(f"{path} does not exist: save the tokenizer into the folder too (tokenizer.save_pretrained)") from err
    except KeyError as err:
        raise Refused(
            f"{path} lacks the special token {err}, which marks turns: it is not the tokenizer of a nanochat model"
        ) from err
    except (OSError, ValueError) as err:
        raise Refused(f"{path} cannot be used: {err}. Put the tokenizer there that the model was trained with") from err


def _with_our_epsilon(weights: dict[str, Lazy], eps: float) -> dict[str, Lazy]:
    """Scale the inputs of norms whose output does not depend on their scale otherwise, so that our epsilon has the effect of `eps`.

    x / sqrt(mean(x^2) + eps) = s x / sqrt(mean((s x)^2) + EPS) with s = sqrt(EPS / eps). This is exact for the embedding and for
    queries and keys. The other norms read the residual stream, whose mean square is about 1 or more, so that their output
    changes by less than eps / 2, relatively. The scaled tensors are fp32: bf16 would round them once more.
    """
    if math.isclose(eps, EPS, rel_tol=1e-6):
        return weights
    scale = math.sqrt(EPS / eps)
    scaled = {name for name in weights if name == "embed.weight" or name.endswith(("attn.q.weight", "attn.k.weight"))}
    return {name: _times(tensor, scale) if name in scaled else tensor for name, tensor in weights.items()}


def _times(tensor: Lazy, scale: float) -> Lazy:
    return Lazy(tensor.shape, torch.float32, lambda: tensor.load().float() * scale, tensor.origin)
