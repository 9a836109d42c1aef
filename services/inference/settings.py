"""What the inference service is told at start: environment variables `NANOCHAT_…`, each also a command-line option."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, CliSuppress, SettingsConfigDict

Count = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """Where models come from (`api_url`, or `model` with `tokenizer`), who may ask, and how much is taken on at once."""

    model_config = SettingsConfigDict(env_prefix="NANOCHAT_", cli_kebab_case=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=8001, ge=0, le=65_535)
    api_url: str | None = Field(default=None, description="control API whose promoted checkpoints are served")
    api_key: CliSuppress[SecretStr | None] = Field(
        default=None, description="bearer key: asked of callers, shown to the control API"
    )
    api_key_file: Path | None = Field(
        default=None, description="file of bearer keys, one a line; callers may use any, the control API is shown the first"
    )
    model: Path | None = Field(default=None, description="serve this sealed checkpoint, with no control API")
    tokenizer: Path | None = Field(default=None, description="the tokenizer directory that belongs to `model`")
    device: str | None = Field(default=None, description="cpu, mps or cuda; unset chooses")
    max_loaded: Count = Field(default=2, description="models kept in memory; the least recently used goes first")
    max_running: Count = Field(default=16, description="requests that decode together; each holds its own KV cache")
    max_waiting: int = Field(default=64, ge=0, description="requests that may queue behind them before 429")
    poll_s: float = Field(default=3.0, gt=0, description="seconds between two looks at the control API's list of models")
    drain_s: Count = Field(default=20, description="seconds that running requests get to finish at shutdown")

    @model_validator(mode="after")
    def _has_one_source(self) -> Settings:
        if self.model is None and self.tokenizer is None and self.api_url is None:
            raise ValueError("no source of models: set NANOCHAT_API_URL, or give --model DIR with --tokenizer DIR")
        if (self.model is None) != (self.tokenizer is None):
            raise ValueError("--model and --tokenizer belong together: give both directories")
        return self

    def keys(self) -> tuple[str, ...]:
        """The bearer keys, own first. Raises ValueError when none is set and the address is open to other machines."""
        lines = self.api_key_file.read_text(encoding="utf-8").split() if self.api_key_file else []
        own = [self.api_key.get_secret_value()] if self.api_key and self.api_key.get_secret_value() else []
        if not own and not lines and not _is_loopback(self.host):
            raise ValueError(f"host {self.host} is open to other machines: set NANOCHAT_API_KEY or NANOCHAT_API_KEY_FILE first")
        return tuple(dict.fromkeys(own + lines))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
