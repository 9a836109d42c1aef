"""The recipe's section `from`: a model that exists already, to start from in place of fresh weights. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nanochat.config.model_spec import Spec
from nanochat.contract.bounds import PathText

First = Literal["base_train", "mid_train", "sft", "rl"]


class FromSpec(Spec):
    """A model to start from. The stages before `first` are left out, and the tokenizer is the model's own."""

    model: PathText = Field(
        description="Folder of the model: a checkpoint or a published model of this program, what `nanochat import` or "
        "`nanochat export` wrote, a folder of transformers' `save_pretrained`, or the folder of another `local-run`. To the API it may "
        "also be the id of a checkpoint (c_…) or of a run (r_…).",
    )
    tokenizer: PathText | None = Field(
        default=None, description="Folder of the model's tokenizer; null means that it is found beside the model."
    )
    first: First = Field(
        default="sft",
        description="Stage that starts from the model. `base_train` continues pretraining, with a schedule of its own; `sft` only "
        "finetunes.",
    )
