"""Settings of the control API, from environment variables with the prefix NANOCHAT_."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from controlplane.history import Keep


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="NANOCHAT_")

    database_url: str = Field(description="Database, as postgresql+psycopg://user:password@host:port/database.")
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="Broker that carries wake-up calls to workers.")
    home: Path = Field(
        default=Path(".nanochat"), description="Directory of the API keys and, shared with the workers, of the runs' artifacts."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on; 0 means any free one.")
    rate_limit_per_s: float = Field(default=500, gt=0, description="Requests per second that each API key may send over time.")
    rate_limit_burst: int = Field(default=2000, ge=1, description="Requests that each API key may send at once.")
    keep_events: int = Field(
        default=200_000, ge=1000, description="Metric, progress and log events that are kept of each run; the newest are."
    )
    keep_events_days: float = Field(default=90, gt=0, description="Days for which those are kept.")
    keep_log_lines: int = Field(default=200_000, ge=1000, description="Log lines that are kept of each run; the newest are.")
    keep_log_days: float = Field(default=90, gt=0, description="Days for which log lines are kept.")

    @property
    def keep(self) -> Keep:
        return Keep(self.keep_events, self.keep_events_days, self.keep_log_lines, self.keep_log_days)

    webhook_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(),
        description="Private networks that webhooks may reach, such as 10.1.0.0/16, separated by commas. Others are refused.",
    )

    @field_validator("webhook_networks", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def admin_key_file(self) -> Path:
        return self.home / "keys" / "admin.key"

    @property
    def webhook_key_file(self) -> Path:
        return self.home / "keys" / "webhook.key"
