"""Settings of the control API, from environment variables with the prefix NANOCHAT_."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


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

    @property
    def admin_key_file(self) -> Path:
        return self.home / "keys" / "admin.key"
