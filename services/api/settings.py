"""What the control API is told from outside: environment variables with the prefix NANOCHAT_."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="NANOCHAT_")

    database_url: str = Field(description="postgresql+psycopg://…")
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="the broker that wakes workers")
    home: Path = Field(default=Path(".nanochat"), description="keys and, shared with the workers, the runs' artifacts")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)

    @property
    def admin_key_file(self) -> Path:
        return self.home / "keys" / "admin.key"
