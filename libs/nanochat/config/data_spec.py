"""The recipe's settings for its text, its task data and its tokenizer. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from nanochat.config.model_spec import Spec
from nanochat.contract.bounds import Chars, CollectedChars, Connections, PathText, PlaceText, Shards, UrlText, one_line

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

FileName = Annotated[str, Field(min_length=1, max_length=255)]
ColumnName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(one_line)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PydocsSource(Spec):
    """English documentation found on any machine: docstrings and manuals of the standard library and installed packages."""

    kind: Literal["pydocs"] = Field(default="pydocs", description="Selects this source.")
    max_chars: CollectedChars = Field(
        default=12_000_000, description="Maximum number of characters to collect, training and validation text together."
    )


class FolderSource(Spec):
    """Text in a local folder: .parquet or .jsonl shards, or .txt. The validation text is in files whose names say validation,
    else test; else it is the last shard by name, or the last twentieth of a single file or of .txt."""

    kind: Literal["folder"] = Field(default="folder", description="Selects this source.")
    path: PathText = Field(description="The folder. The API's machine and every worker must see it under this path.")
    column: ColumnName = Field(
        default="text", description="Column of the parquet files, or key of the lines of .jsonl, that holds the documents."
    )


class HttpSource(Spec):
    """Numbered parquet shards under one base URL. The validation shard is always the same, however many others are fetched."""

    kind: Literal["http"] = Field(default="http", description="Selects this source.")
    base_url: UrlText = Field(
        default="https://huggingface.co/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/main",
        description="URL of the directory that holds the shards; any mirror of it works.",
    )
    name: str = Field(
        default="shard_{index:05d}.parquet",
        min_length=1,
        max_length=255,
        description="File name of a shard, with a placeholder for its number in the syntax of Python's `str.format`.",
    )
    train_shards: Shards = Field(default=240, description="Number of training shards, counted from shard 0.")
    val_index: int = Field(
        default=1822, ge=0, le=10**7, description="Number of the validation shard. It must not be one of the training shards."
    )
    sha256: dict[FileName, Sha256] = Field(
        default_factory=dict,
        max_length=10_000,
        description="SHA-256 by file name, for shards whose digest is known. A download that does not match is refused.",
    )
    column: ColumnName = Field(default="text", description="Column that holds the documents.")
    workers: Connections = Field(default=8, description="Shards fetched at the same time.")

    @model_validator(mode="after")
    def _val_is_not_trained_on(self) -> HttpSource:
        if self.val_index < self.train_shards:
            raise ValueError(
                f"val_index {self.val_index} is one of the {self.train_shards} train shards; choose val_index >= train_shards"
            )
        return self


TextSource = Annotated[PydocsSource | FolderSource | HttpSource, Field(discriminator="kind")]


class DataSpec(Spec):
    """What the `data` stage gets for the run: text, task data and the CORE evaluation bundle."""

    source: TextSource = Field(
        default=HttpSource(), description="Text for the tokenizer and for pretraining. `kind` selects the source."
    )
    tok_chars: Chars = Field(
        default=2_000_000_000,
        description="Characters of training text that must be on disk before the tokenizer trains; fetching goes on meanwhile.",
    )
    tasks: PlaceText | None = Field(
        default="https://huggingface.co",
        description="Data sets of the tasks: a folder, the base URL of a hub, or null for none. Without them only generated tasks "
        'can be used. TOML has no null: write "none".',
    )
    core: PlaceText | None = Field(
        default="https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip",
        description="The CORE evaluation bundle: a folder, the URL of a zip file, or null for none. "
        'TOML has no null: write "none".',
    )
    words: PlaceText | None = Field(
        default="https://raw.githubusercontent.com/dwyl/english-words/refs/heads/master/words_alpha.txt",
        description="The word list of the tasks spellingbee and simplespelling, one word on each line: a file, a URL, or null for "
        'none. It is fetched if the recipe has one of these tasks. TOML has no null: write "none".',
    )

    @field_validator("tasks", "core", "words", mode="before")
    @classmethod
    def _none_by_name(cls, value: Any) -> Any:
        # TOML has no null, and a recipe must be able to override the default of these with it.
        return None if value in ("none", "") else value


class TokenizerSpec(Spec):
    """The byte-level BPE tokenizer, trained on the first training shards."""

    vocab_size: int = Field(
        default=65_536,
        ge=256 + len(SPECIAL_TOKENS),
        le=2**20,
        json_schema_extra={"unit": "tokens"},
        description="Size of the vocabulary, special tokens included. nanochat: 32,768 since 2026-01-07.",
    )
    max_chars: Chars = Field(default=2_000_000_000, description="Maximum number of characters of text that training reads.")
    doc_cap: CollectedChars = Field(
        default=10_000, description="Maximum number of characters that training reads of one document."
    )
