"""What a recipe says of its text, its task data and its tokenizer. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from nanochat.config.model_spec import Positive, Spec

SPECIAL_TOKENS = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)


class PydocsSource(Spec):
    """English documentation found on any machine: docstrings and manuals of the standard library and installed packages."""

    kind: Literal["pydocs"] = "pydocs"
    max_chars: Positive = 12_000_000


class FolderSource(Spec):
    """Parquet shards with a `text` column in a local folder; the last file by name is the validation shard."""

    kind: Literal["folder"] = "folder"
    path: str


class HttpSource(Spec):
    """Numbered parquet shards under one base URL. The validation shard is pinned, whatever else is fetched."""

    kind: Literal["http"] = "http"
    base_url: str = "https://huggingface.co/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/main"
    name: str = "shard_{index:05d}.parquet"
    train_shards: Positive = 240
    val_index: int = Field(default=1822, ge=0)
    sha256: dict[str, str] = Field(
        default_factory=dict, description="file name to digest, for the shards whose digest is known"
    )
    workers: Positive = 8

    @model_validator(mode="after")
    def _val_is_not_trained_on(self) -> HttpSource:
        if self.val_index < self.train_shards:
            raise ValueError(
                f"val_index {self.val_index} lies among the {self.train_shards} train shards; choose val_index >= train_shards"
            )
        return self


TextSource = Annotated[PydocsSource | FolderSource | HttpSource, Field(discriminator="kind")]


class DataSpec(Spec):
    source: TextSource = HttpSource()
    tok_chars: Positive = Field(
        default=2_000_000_000, description="characters that must be on disk before the tokenizer trains"
    )
    tasks: str | None = Field(
        default="https://huggingface.co",
        description='hub data of the tasks: a folder, a hub\'s base URL, or null (in TOML: "none") for none: then only built-in tasks work',
    )
    core: str | None = Field(
        default="https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip",
        description='the CORE bundle: a folder, a zip\'s URL, or null (in TOML: "none") for none',
    )

    @field_validator("tasks", "core", mode="before")
    @classmethod
    def _none_by_name(cls, value: Any) -> Any:
        # TOML has no null, and these two have a default to get away from.
        return None if value in ("none", "") else value


class TokenizerSpec(Spec):
    vocab_size: int = Field(default=65_536, ge=256 + len(SPECIAL_TOKENS), description="special tokens included")
    max_chars: Positive = 2_000_000_000
    doc_cap: Positive = 10_000
