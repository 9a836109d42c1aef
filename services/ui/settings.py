"""Settings of the dashboard itself. `client.settings` finds the addresses and the key of the platform."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """NANOCHAT_HOST, NANOCHAT_PORT, NANOCHAT_POLL_S, each also a command-line option."""

    model_config = SettingsConfigDict(env_prefix="NANOCHAT_", cli_kebab_case=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=7860, ge=0, le=65_535)
    poll_s: Annotated[float, Field(gt=0, description="seconds between two polls of the platform")] = 2.0
