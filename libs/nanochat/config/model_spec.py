"""What a recipe says of the model and of its optimizer. Imports no torch.

Defaults are the speedrun's of November 2025. Everything learnt since is a switch of its own, off by default, whose description
names the source: an entry of nanochat's public log (MIT) by its date, or the paper.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Betas = tuple[Beta, Beta]


class InitSpec(Spec):
    """The weights of a fresh model. The two pairs run linearly from the first layer to the last."""

    embedding_std: float = Field(default=1.0, gt=0, description="0.8 since 2026-03-09")
    matrices: Literal["normal", "uniform"] = Field(
        default="normal", description="uniform of the same standard deviation, without outliers: 2026-01-01"
    )
    mlp_scale: float = Field(default=1.0, gt=0, description="times the MLP's up-projection; 0.4 since 2026-03-14")
    head_std: float = Field(default=0.0, ge=0, description="0: every logit starts at 0; 0.001 since 2026-01-01")
    resid: tuple[float, float] = Field(default=(1.15, 1.05), description="with residual_scalars: 2026-03-14")
    x0: tuple[float, float] = Field(default=(0.20, 0.05), description="with residual_scalars: 2026-03-14")


class ModelSpec(Spec):
    """One dial: `depth` layers give width 64 x depth and heads of 128."""

    depth: Positive = 20
    seq_len: Positive = 2048
    aspect_ratio: Positive = 64
    head_dim: Positive = 128
    init: InitSpec = InitSpec()
    residual_scalars: bool = Field(
        default=False,
        description="each layer reads r x stream + s x embedding, r and s learnt: -0.010 bpb at d8, -0.004 at d20 (2026-01-11)",
    )
    value_embeds: bool = Field(
        default=False,
        description="every other layer, the last included, adds a gated embedding of the token to its values: wins on steps, "
        "FLOPs and time (2026-01-17; Zhou et al. 2024, ResFormer)",
    )
    window_pattern: str = Field(
        default="L",
        pattern="^[SL]+$",
        description="repeated over the layers, S sees a short window, L all; the last layer is always L. SSSL: better bpb per "
        "FLOP (2026-01-11), but slower where attention takes a mask for it, as ours does",
    )
    window_ratio: float = Field(
        default=0.25, gt=0, le=1, description="of seq_len, rounded up to a multiple of 128: what S sees (2026-03-14)"
    )
    qk_scale: float = Field(
        default=1.0, gt=0, description="times queries and keys each, after their norm: sharper attention; 1.2 since 2026-03-14"
    )
    rope_base: float = Field(default=10_000.0, gt=1, description="100,000 since 2026-03-09")
    smear: bool = Field(
        default=False, description="adds a gated part of the token before to each token's embedding (2026-03-14)"
    )
    backout: bool = Field(
        default=False, description="takes a learnt part of the middle layer's stream away before the head (2026-03-14)"
    )

    @property
    def n_embd(self) -> int:
        return self.depth * self.aspect_ratio

    @property
    def n_head(self) -> int:
        return max(1, -(-self.n_embd // self.head_dim))

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ModelSpec:
        if self.n_embd % self.n_head or (self.n_embd // self.n_head) % 2:
            raise ValueError(
                f"depth {self.depth} gives width {self.n_embd}, which {self.n_head} heads do not divide evenly; use an even depth"
            )
        return self


class AdamSpec(Spec):
    """AdamW for one group of parameters."""

    lr: float = Field(gt=0)
    betas: Betas = (0.8, 0.95)
    weight_decay: float = Field(default=0.0, ge=0)


class OptimSpec(Spec):
    """Learning rates are before the (width/768)^-0.5 factor that embeddings and unembedding get.

    Groups that the speedrun's model lacks have the numbers of 2026-03-09; they matter only when the model has them.
    """

    embedding_lr: float = Field(default=0.2, gt=0, description="0.3 since 2026-01-05")
    unembedding_lr: float = Field(default=0.004, gt=0, description="0.008 since 2026-03-09")
    matrix_lr: float = Field(default=0.02, gt=0)
    weight_decay: float = Field(
        default=0.0, ge=0, description="of embedding and unembedding, where they have none of their own"
    )
    grad_clip: float = Field(
        default=1.0, ge=0, description="0 turns clipping off: the norm never passed 1, +2 % speed (2026-01-08)"
    )
    embedding_betas: Betas = Field(default=(0.8, 0.95), description="(0.8, 0.995) since 2026-03-09")
    unembedding_betas: Betas = Field(default=(0.8, 0.95), description="(0.8, 0.96) since 2026-03-09")
    embedding_weight_decay: float | None = Field(default=None, ge=0, description="0.001 since 2026-03-09")
    unembedding_weight_decay: float | None = Field(default=None, ge=0, description="0.01 since 2026-03-09")
    value_embeds: AdamSpec = Field(
        default=AdamSpec(lr=0.15, betas=(0.8, 0.995), weight_decay=0.01), description="gets the width factor, too"
    )
    resid: AdamSpec = AdamSpec(lr=0.005, weight_decay=0.05)
    x0: AdamSpec = AdamSpec(lr=0.5, betas=(0.96, 0.95))
    smear: AdamSpec = Field(default=AdamSpec(lr=0.2), description="smear and backout")
    matrix_weight_decay: float = Field(
        default=0.0,
        ge=0,
        description="of the matrices, cautious: only where it and the update pull the same way. 0.28 since 2026-03-09 "
        "(2026-01-10; Chen et al. 2025, Cautious Weight Decay)",
    )
    orthogonalizer: Literal["newton_schulz", "polar_express"] = Field(
        default="newton_schulz",
        description="Polar Express has a polynomial of its own for each step (2026-01-10; Amsel et al. 2025)",
    )
    normuon_beta2: Beta | None = Field(
        default=None,
        description="evens out the size of each output's update by a running mean of its square; 0.9 since 2026-03-09 "
        "(2026-01-10; Li et al. 2025, NorMuon)",
    )


class UnclippedOptimSpec(OptimSpec):
    grad_clip: float = Field(default=0.0, ge=0)
