"""Trains a small model for five steps on rows dealt out to all ranks. Run by torchrun."""

import dataclasses
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from nanochat import distributed
from nanochat.config.recipe import AdamSpec, OptimSpec
from nanochat.distributed import Ranks
from nanochat.model import GPT, GPTConfig, init_weights
from nanochat.optim import Optimizer

# The embedding has 61 x 16 elements, an awkward size to divide.
CONFIG = GPTConfig(sequence_len=16, vocab_size=61, n_layer=2, n_head=2, n_kv_head=2, n_embd=16)
# Four layers: with two, the middle layer is the last, and the final norm would cancel what backout subtracts.
MODERN = dataclasses.replace(CONFIG, n_layer=4, residual_scalars=True, value_embeds=True, smear=True, backout=True)
SPEC = OptimSpec(grad_clip=0.05)
SLOW = AdamSpec(lr=0.005)  # where a gradient is nearly 0, Adam turns its rounding noise into full-size steps
MODERN_SPEC = OptimSpec(
    grad_clip=0.05, matrix_weight_decay=0.3, orthogonalizer="polar_express", normuon_beta2=0.9, smear=SLOW, x0=SLOW
)
KINDS = {"speedrun": (CONFIG, SPEC), "modern": (MODERN, MODERN_SPEC)}
ROWS, STEPS = 12, 5


def train(ranks: Ranks, out: Path, kind: str) -> None:
    config, spec = KINDS[kind]
    torch.manual_seed(ranks.rank)  # only rank 0's weights count: the optimizer broadcasts them
    with ranks.device:
        model = GPT(config)
    init_weights(model)
    if kind == "modern":  # a fresh model's gradients are rank-deficient; orthogonalizing them amplifies rounding noise
        for param in model.parameters():
            torch.nn.init.normal_(param, std=0.3)
    optimizer = Optimizer(model, spec, ranks)
    data = torch.randint(0, 61, (STEPS, ROWS, 17), generator=torch.Generator().manual_seed(7))
    log: dict[str, list[float]] = {"losses": [], "norms": []}
    for rows in data:
        mine = rows[ranks.rank :: ranks.world_size].to(ranks.device)
        loss = model(mine[:, :-1], mine[:, 1:])
        loss.backward()
        log["norms"].append(float(optimizer.step(1.0, 0.9)))
        optimizer.zero_grad()
        log["losses"].append(ranks.sum(loss.item())[0] / ranks.world_size)
    save_file({k: v.clone() for k, v in optimizer.state().items()}, out / f"optim_rank{ranks.rank}.safetensors")
    if ranks.is_main:
        save_file({k: v.clone() for k, v in model.state_dict().items()}, out / "model.safetensors")
        (out / "log.json").write_text(json.dumps(log))


if __name__ == "__main__":
    with distributed.ranks(sys.argv[3]) as ranks:
        train(Ranks(ranks.rank, ranks.world_size, ranks.device), Path(sys.argv[1]), sys.argv[2])
