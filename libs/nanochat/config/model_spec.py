"""The recipe's settings for the model and its optimizer. Imports no torch.

Defaults are those of nanochat's speedrun of November 2025. Each later improvement is a switch of its own, off by default. A
description ends with nanochat's present value where that differs; dates are entries of nanochat's public log (MIT).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nanochat.contract.bounds import Beta, Betas, Deviation, Factor, LearningRate, Length, Scalar, WeightDecay


class Spec(BaseModel):
    """A section of a recipe. It refuses unknown fields and cannot be changed once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InitSpec(Spec):
    """Initial weights. `resid` and `x0` give the values of the first and the last layer; layers between are interpolated."""

    embedding_std: Factor = Field(
        default=1.0, description="Standard deviation of the token embedding. nanochat: 0.8 since 2026-03-09."
    )
    matrices: Literal["normal", "uniform"] = Field(
        default="normal",
        description="Distribution of the blocks' matrices. `uniform` has the same standard deviation as `normal` but no outliers. "
        "nanochat: `uniform` since 2026-01-01.",
    )
    mlp_scale: Factor = Field(
        default=1.0,
        description="Factor on the standard deviation of the MLP's up-projection. nanochat: 0.4 since 2026-03-14.",
    )
    head_std: Deviation = Field(
        default=0.0,
        description="Standard deviation of the unembedding. With 0 every logit starts at 0. nanochat: 0.001 since 2026-01-01.",
    )
    resid: tuple[Scalar, Scalar] = Field(
        default=(1.15, 1.05),
        description="Initial weight of the residual stream in the first and the last layer, used only with "
        "`model.residual_scalars`. nanochat: these values since 2026-03-14.",
    )
    x0: tuple[Scalar, Scalar] = Field(
        default=(0.20, 0.05),
        description="Initial weight of the token embedding in the first and the last layer, used only with "
        "`model.residual_scalars`. nanochat: these values since 2026-03-14.",
    )


class ModelSpec(Spec):
    """The transformer. `depth` sets its size: it gives a width of 64 x depth and heads of 128 dimensions."""

    depth: int = Field(
        default=20,
        gt=0,
        le=1024,
        json_schema_extra={"unit": "layers"},
        description="Number of layers. It also sets the width, depth x aspect_ratio.",
    )
    seq_len: Length = Field(default=2048, description="Context length of training rows, in tokens.")
    aspect_ratio: int = Field(default=64, gt=0, le=1024, description="Width of the residual stream divided by depth.")
    head_dim: int = Field(
        default=128,
        gt=0,
        le=4096,
        description="Largest dimension of an attention head. The number of heads is width / head_dim, rounded up.",
    )
    init: InitSpec = Field(default=InitSpec(), description="Initial weights.")
    residual_scalars: bool = Field(
        default=False,
        description="Each layer reads r x residual stream + s x token embedding, where r and s are learnt scalars. "
        "Bits per byte fell by 0.010 at d8 and 0.004 at d20. nanochat: on since 2026-01-11.",
    )
    value_embeds: bool = Field(
        default=False,
        description="Every other layer, the last one included, adds a gated embedding of the token to its attention values. "
        "Better per step, per FLOP and per second (ResFormer, Zhou et al. 2024). nanochat: on since 2026-01-17.",
    )
    window_pattern: str = Field(
        default="L",
        pattern="^[SL]+$",
        max_length=1024,
        description="Attention window of each layer, repeated over the layers: S is a short window (see `window_ratio`), L the "
        "whole context. The last layer is always L. SSSL gave better bits per byte per FLOP (nanochat, 2026-01-11), but it is "
        "slower here, where attention needs a mask for a window.",
    )
    window_ratio: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Short window as a fraction of `seq_len`, rounded up to a multiple of 128 tokens. "
        "nanochat: 0.25 since 2026-03-14.",
    )
    qk_scale: Factor = Field(
        default=1.0,
        description="Factor on queries and on keys after their norm; more than 1 sharpens attention. "
        "nanochat: 1.2 since 2026-03-14.",
    )
    rope_base: float = Field(
        default=10_000.0,
        gt=1,
        le=1e12,
        description="Base of the rotary position frequencies. nanochat: 100,000 since 2026-03-09.",
    )
    smear: bool = Field(
        default=False,
        description="Adds a gated, learnt share of the previous token's embedding to each token's embedding. "
        "nanochat: on since 2026-03-14.",
    )
    backout: bool = Field(
        default=False,
        description="Subtracts a learnt share of the middle layer's output from the residual stream before the head. "
        "nanochat: on since 2026-03-14.",
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

    lr: LearningRate = Field(description="Peak learning rate.")
    betas: Betas = Field(default=(0.8, 0.95), description="Decay rates of the running means of the gradient and of its square.")
    weight_decay: WeightDecay = Field(default=0.0, description="Decoupled weight decay.")


class OptimSpec(Spec):
    """Muon for the blocks' matrices, AdamW for everything else.

    The learning rates of the embeddings and the unembedding are multiplied by (width / 768)^-0.5. Parameters that the
    speedrun's model lacks (`value_embeds`, `resid`, `x0`, `smear`) have nanochat's values of 2026-03-09; they have an effect
    only when the model has these parameters.
    """

    embedding_lr: LearningRate = Field(
        default=0.2,
        description="Peak learning rate of the token embedding, before the width factor. nanochat: 0.3 since 2026-01-05.",
    )
    unembedding_lr: LearningRate = Field(
        default=0.004,
        description="Peak learning rate of the unembedding, before the width factor. nanochat: 0.008 since 2026-03-09.",
    )
    matrix_lr: LearningRate = Field(default=0.02, description="Peak learning rate of Muon for the blocks' matrices.")
    weight_decay: WeightDecay = Field(
        default=0.0,
        description="Weight decay of the token embedding and the unembedding, where `embedding_weight_decay` and "
        "`unembedding_weight_decay` are not set.",
    )
    grad_clip: float = Field(
        default=1.0,
        ge=0,
        le=1e9,
        description="Largest global norm of the gradient; a larger gradient is scaled down to it. 0 turns clipping off. "
        "nanochat: 0 since 2026-01-08, because the norm never passed 1 and training was 2 % faster.",
    )
    embedding_betas: Betas = Field(
        default=(0.8, 0.95), description="AdamW betas of the token embedding. nanochat: (0.8, 0.995) since 2026-03-09."
    )
    unembedding_betas: Betas = Field(
        default=(0.8, 0.95), description="AdamW betas of the unembedding. nanochat: (0.8, 0.96) since 2026-03-09."
    )
    embedding_weight_decay: WeightDecay | None = Field(
        default=None,
        description="Weight decay of the token embedding; null means `weight_decay`. nanochat: 0.001 since 2026-03-09.",
    )
    unembedding_weight_decay: WeightDecay | None = Field(
        default=None,
        description="Weight decay of the unembedding; null means `weight_decay`. nanochat: 0.01 since 2026-03-09.",
    )
    value_embeds: AdamSpec = Field(
        default=AdamSpec(lr=0.15, betas=(0.8, 0.995), weight_decay=0.01),
        description="AdamW for the value embeddings (`model.value_embeds`). Its learning rate gets the width factor, too.",
    )
    resid: AdamSpec = Field(
        default=AdamSpec(lr=0.005, weight_decay=0.05),
        description="AdamW for the residual stream's scalars (r of `model.residual_scalars`).",
    )
    x0: AdamSpec = Field(
        default=AdamSpec(lr=0.5, betas=(0.96, 0.95)),
        description="AdamW for the token embedding's scalars (s of `model.residual_scalars`).",
    )
    smear: AdamSpec = Field(
        default=AdamSpec(lr=0.2), description="AdamW for the parameters of `model.smear` and `model.backout`."
    )
    matrix_weight_decay: WeightDecay = Field(
        default=0.0,
        description="Cautious weight decay of the blocks' matrices: it acts only on weights that the update moves towards zero as "
        "well (Chen et al. 2025). nanochat: 0.28 since 2026-03-09 (0.2 on 2026-01-10).",
    )
    orthogonalizer: Literal["newton_schulz", "polar_express"] = Field(
        default="newton_schulz",
        description="Iteration with which Muon orthogonalizes its updates. `polar_express` uses a different polynomial in each "
        "iteration (Amsel et al. 2025). nanochat: `polar_express` since 2026-01-10.",
    )
    normuon_beta2: Beta | None = Field(
        default=None,
        description="Decay rate of a running mean of each output's squared update, by which Muon evens out the sizes of the "
        "updates (NorMuon, Li et al. 2025); null turns it off. nanochat: 0.9 since 2026-03-09 (0.95 on 2026-01-10).",
    )


class UnclippedOptimSpec(OptimSpec):
    """The optimizer of the stages after pretraining, which do not clip gradients unless told to."""

    grad_clip: float = Field(
        default=0.0,
        ge=0,
        le=1e9,
        description="Largest global norm of the gradient; a larger gradient is scaled down to it. 0 turns clipping off.",
    )
