"""Settings of the dashboard itself. `client.settings` finds the addresses of the platform."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """NANOCHAT_HOST, NANOCHAT_PORT, … each also a command-line option."""

    model_config = SettingsConfigDict(env_prefix="NANOCHAT_", cli_kebab_case=True, env_ignore_empty=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=7860, ge=0, le=65_535)
    poll_s: Annotated[float, Field(gt=0, description="seconds between two polls of the platform by the chat")] = 2.0
    ui_hosts: str = Field(
        default="", description="host names, separated by commas, under which browsers reach the dashboard, besides localhost"
    )
    session_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="secret that encrypts the cookies of sign-in; by default a new one in keys/session.key of NANOCHAT_HOME",
    )
