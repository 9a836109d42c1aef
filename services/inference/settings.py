"""Settings of the inference service: environment variables `NANOCHAT_…`, also available as command-line options."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, CliSuppress, NoDecode, SettingsConfigDict

from services.inference.limits import Limits

Count = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """Source of the models (`api_url`, or `model` with `tokenizer`), API keys, and limits."""

    model_config = SettingsConfigDict(env_prefix="NANOCHAT_", env_nested_delimiter="__", cli_kebab_case=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=8001, ge=0, le=65_535)
    api_url: str | None = Field(default=None, description="control API whose promoted checkpoints are served")
    api_key: CliSuppress[SecretStr | None] = Field(
        default=None, description="bearer key that callers must send; also sent to the control API"
    )
    api_key_file: Path | None = Field(
        default=None,
        description="file of bearer keys, one per line; callers may send any of them, or another key of the project of the first, which the control API gets",
    )
    model: Path | None = Field(default=None, description="directory of one sealed checkpoint to serve, without a control API")
    tokenizer: Path | None = Field(default=None, description="directory of the tokenizer that `model` was trained with")
    device: str | None = Field(default=None, description="cpu, mps or cuda; default: the best one available")
    replicas: Count | None = Field(default=None, description="engine processes; default: one per GPU, or one on a CPU")
    threads: Count | None = Field(
        default=None,
        description="threads of torch in an engine process on a CPU; default: 1 for a small model, else torch's own number, shared by the replicas",
    )
    kv_cache: Literal["model", "fp8"] = Field(
        default="model",
        description="type of keys and values: the model's own, or fp8, which holds twice as many (GPUs since 2022)",
    )
    weights: Literal["model", "int8"] = Field(
        default="model",
        description="the model's own weights, or rounded to 8 bits, which makes a conversation that has a GPU to itself faster",
    )
    cache_share: float = Field(
        default=0.4,
        gt=0,
        le=0.9,
        description="share of the free GPU memory that a model takes for its KV cache when it is loaded",
    )
    default_model: str | None = Field(
        default=None, description="id of the model for requests that name none; default: the newest promoted one that loads"
    )
    max_loaded: Count = Field(default=2, description="most models in memory; the least recently used one is unloaded first")
    max_running: Count = Field(default=128, description="most answers that one engine process decodes together")
    max_waiting: int = Field(
        default=256, ge=0, description="most requests that wait for one engine process; further ones are refused with 429"
    )
    max_waiting_tokens: Count = Field(
        default=262_144,
        description="most prompt tokens that wait for one engine process; further requests are refused with 429",
    )
    max_body_bytes: Count = Field(default=8 << 20, description="largest body of a request; a larger one is refused with 413")
    max_body_values: Count = Field(default=100_000, description="most JSON values in a body; one with more is refused with 400")
    headers_timeout_s: float = Field(default=10.0, gt=0, description="seconds that the headers of a request may take to arrive")
    body_timeout_s: float = Field(default=30.0, gt=0, description="seconds that the body of a request may take to arrive")
    reading_timeout_s: float = Field(
        default=60.0, gt=0, description="seconds after which a client that reads nothing of its answer is cut off"
    )
    step_timeout_s: float = Field(
        default=60.0, ge=2, description="seconds of silence after which an engine process is killed and restarted"
    )
    start_timeout_s: float = Field(
        default=300.0, ge=2, description="the same, while it starts: importing torch may take minutes"
    )
    poll_s: float = Field(default=3.0, gt=0, description="seconds between two requests for the control API's list of models")
    drain_s: Count = Field(default=20, description="seconds that running requests may take to finish at shutdown")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="web origins whose pages may send requests, separated by commas; * for all"
    )
    limits: Limits = Limits()

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        return tuple(origin.strip() for origin in value.split(",") if origin.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_one_source(self) -> Settings:
        if self.model is None and self.tokenizer is None and self.api_url is None:
            raise ValueError("no source of models: set NANOCHAT_API_URL, or give --model DIR with --tokenizer DIR")
        if (self.model is None) != (self.tokenizer is None):
            raise ValueError("--model and --tokenizer belong together: give both directories")
        return self

    def keys(self) -> tuple[str, ...]:
        """The bearer keys, `api_key` first. Raises ValueError if there is none and other machines can reach the service."""
        lines = self.api_key_file.read_text(encoding="utf-8").split() if self.api_key_file else []
        own = [self.api_key.get_secret_value()] if self.api_key and self.api_key.get_secret_value() else []
        if not own and not lines and not _is_loopback(self.host):
            raise ValueError(
                f"host {self.host} is reachable from other machines: set NANOCHAT_API_KEY or NANOCHAT_API_KEY_FILE"
            )
        return tuple(dict.fromkeys(own + lines))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
