"""Trains a small model for five steps on rows that are dealt out to however many ranks there are. Run by torchrun."""

import dataclasses
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from nanochat.config.recipe import AdamSpec, OptimSpec
from nanochat.distributed import Ranks, ranks
from nanochat.model import GPT, GPTConfig, init_weights
from nanochat.optim import Optimizer

CONFIG = GPTConfig(sequence_len=16, vocab_size=61, n_layer=2, n_head=2, n_kv_head=2, n_embd=16)  # 61 x 16 divides by nothing
# Four layers: of two, the middle one is the last, and what backout takes from the stream the norm gives back.
MODERN = dataclasses.replace(CONFIG, n_layer=4, residual_scalars=True, value_embeds=True, smear=True, backout=True)
SPEC = OptimSpec(grad_clip=0.05)
SLOW = AdamSpec(lr=0.005)  # Adam makes whole steps of what is rounding noise in a gradient that is nearly 0
MODERN_SPEC = OptimSpec(
    grad_clip=0.05, matrix_weight_decay=0.3, orthogonalizer="polar_express", normuon_beta2=0.9, smear=SLOW, x0=SLOW
)
KINDS = {"seed": (CONFIG, SPEC), "modern": (MODERN, MODERN_SPEC)}
ROWS, STEPS = 12, 5


def train(here: Ranks, out: Path, kind: str) -> None:
    config, spec = KINDS[kind]
    torch.manual_seed(here.rank)  # only rank 0's weights count: the optimizer hands them to all
    with here.device:
        model = GPT(config)
    init_weights(model)
    if kind == "modern":  # a fresh model's gradients lack ranks, and what orthogonalizing makes of those is rounding noise
        for param in model.parameters():
            torch.nn.init.normal_(param, std=0.3)
    optimizer = Optimizer(model, spec, here)
    data = torch.randint(0, 61, (STEPS, ROWS, 17), generator=torch.Generator().manual_seed(7))
    log: dict[str, list[float]] = {"losses": [], "norms": []}
    for rows in data:
        mine = rows[here.rank :: here.world_size].to(here.device)
        loss = model(mine[:, :-1], mine[:, 1:])
        loss.backward()
        log["norms"].append(float(optimizer.step(1.0, 0.9)))
        optimizer.zero_grad()
        log["losses"].append(here.sum(loss.item())[0] / here.world_size)
    save_file({k: v.clone() for k, v in optimizer.state().items()}, out / f"optim_rank{here.rank}.safetensors")
    if here.is_main:
        save_file({k: v.clone() for k, v in model.state_dict().items()}, out / "model.safetensors")
        (out / "log.json").write_text(json.dumps(log))


if __name__ == "__main__":
    with ranks(sys.argv[3]) as here:
        train(Ranks(here.rank, here.world_size, here.device), Path(sys.argv[1]), sys.argv[2])
