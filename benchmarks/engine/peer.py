"""`transformers` on the weights that we measure: its `generate`, and its continuous batching."""

from __future__ import annotations

import time
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from benchmarks.engine.measure import Decoded, synchronize
from benchmarks.engine.subject import Prompts, Subject
from nanochat.config.shape import GPTConfig
from nanochat.model import GPT
from nanochat.model.layers import EPS

# Our name of a matrix in a layer -> that of `NanoChatForCausalLM`.
IN_LAYER = {
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.out": "self_attn.o_proj",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}


class Unavailable(Exception):
    """Why the peer cannot be measured here."""


class Transformers:
    """Raises Unavailable when the package is missing or too old, or when it cannot express the model."""

    def __init__(self, subject: Subject, model: GPT):
        try:
            from transformers import NanoChatConfig, NanoChatForCausalLM, __version__
        except ImportError as err:
            raise Unavailable(f"transformers >= 5 is not installed: {err}") from err
        config = subject.config
        plain = GPTConfig(*(getattr(config, name) for name in GPTConfig.__slots__[:6]))
        if config != plain:
            raise Unavailable("NanoChatForCausalLM lacks what this recipe adds to the speedrun's model")
        self.name, self._subject = f"transformers {__version__}", subject
        settings = NanoChatConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.n_embd,
            intermediate_size=4 * config.n_embd,
            num_hidden_layers=config.n_layer,
            num_attention_heads=config.n_head,
            num_key_value_heads=config.n_kv_head,
            max_position_embeddings=config.sequence_len,
            rms_norm_eps=EPS,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
        settings._attn_implementation = "sdpa"
        before = torch.get_default_dtype()
        torch.set_default_dtype(subject.torch_dtype)  # as its from_pretrained does
        try:
            with torch.device(subject.device):
                self.model: Any = NanoChatForCausalLM(settings).eval()
        finally:
            torch.set_default_dtype(before)
        self.model.load_state_dict(dict(translated(model)))

    def greedy_gap(self, model: GPT, prompts: Prompts, prompt: int, new: int) -> float:
        """The most by which the best logit of our plain model exceeds that of a token which the peer chose greedily."""
        tokens = torch.tensor(prompts(4, prompt), device=self._subject.device)
        made = self._generate(tokens, new, do_sample=False)
        with torch.no_grad():
            logits = model(made)[:, prompt - 1 : -1]
        chosen = logits.gather(2, made[:, prompt:, None])[..., 0]
        return (logits.amax(dim=-1) - chosen).max().item()

    def generate(self, prompts: Prompts, streams: int, prompt: int, new: int) -> Decoded:
        """`generate` for one batch; the time of a call for one token is subtracted for the speed of decoding alone."""
        several = [torch.tensor(prompts(streams, prompt), device=self._subject.device) for _ in range(3)]
        self._timed(several[0], min(new, 8))
        first, _ = self._timed(several[1], 1)
        whole, made = self._timed(several[2], new)
        if made.size(1) != prompt + new:
            raise RuntimeError(f"{self.name} made {made.size(1) - prompt} tokens instead of {new}")
        speed = streams * (new - 1) / (whole - first)
        return Decoded(speed, streams * new / whole, 1000 * streams / speed, prompt + new / 2)

    def continuous(self, prompts: Prompts, streams: int, prompt: int, new: int) -> float:
        """Tokens a second of `generate_batch`, with the prompts read. The manager and its graphs are made beforehand."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        how = GenerationConfig(max_new_tokens=new, do_sample=True, temperature=1.0, top_k=50, eos_token_id=-1, pad_token_id=0)
        sizes: dict[str, Any] = {"max_memory_percent": 0.5}
        if self._subject.device == "cpu":  # where its defaults take all memory for masks
            page = 64
            name = "page_size" if "page_size" in signature(ContinuousBatchingConfig).parameters else "block_size"  # 5.17's name
            sizes = {name: page, "num_blocks": streams * -(-(prompt + new) // page) + 1, "max_batch_tokens": 512}
        seconds = []
        for _ in range(2):
            asked = prompts(streams, prompt)
            synchronize()
            start = time.perf_counter()
            made = self.model.generate_batch(
                asked,
                generation_config=how,
                continuous_batching_config=ContinuousBatchingConfig(**sizes),
                persistent_manager=True,
            )
            seconds.append(time.perf_counter() - start)
            tokens = sum(len(one.generated_tokens) for one in made.values())
            if tokens != streams * new:
                raise RuntimeError(f"{self.name} made {tokens} tokens instead of {streams * new}")
        self.model.destroy_cached_continuous_batching_manager()
        return streams * new / seconds[-1]

    def _timed(self, tokens: Tensor, new: int) -> tuple[float, Tensor]:
        synchronize()
        start = time.perf_counter()
        made = self._generate(tokens, new, do_sample=True, temperature=1.0, top_k=50)
        synchronize()
        return time.perf_counter() - start, made

    def _generate(self, tokens: Tensor, new: int, **how: Any) -> Tensor:
        everything = torch.ones_like(tokens)
        with torch.no_grad():
            made: Tensor = self.model.generate(
                input_ids=tokens, attention_mask=everything, max_new_tokens=new, eos_token_id=None, pad_token_id=0, **how
            )
        return made


def translated(model: GPT) -> list[tuple[str, Tensor]]:
    """Our weights under the names of `NanoChatForCausalLM`."""
    found = [("model.embed_tokens.weight", model.embed.weight), ("lm_head.weight", model.lm_head.weight)]
    for layer, block in enumerate(model.blocks):
        weights = dict(block.named_parameters())
        found += [(f"model.layers.{layer}.{theirs}.weight", weights[f"{ours}.weight"]) for ours, theirs in IN_LAYER.items()]
    return found
