"""Settings of an installation, read from ALGOBOT_ environment variables and the project's `.env` file.

Settings describe one machine or deployment: where the database is, where files go, how long to wait. Everything that
changes results (markets, strategies, risk, configurations) is in algobot.yaml instead.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from algobot_assets.errors import SettingsError

PREFIX = "ALGOBOT_"
PROJECT = "ALGOBOT_PROJECT"
"""Names the project's folder to processes that run elsewhere. Not a setting, because `.env` is in that folder."""


def project_root() -> Path | None:
    """Return the project's folder, or None outside of a project.

    It is the folder that ALGOBOT_PROJECT names; else the working directory or the nearest folder above it that has an
    algobot.yaml and a workspace.yaml; else the checkout that this package runs from.
    """
    given = os.environ.get(PROJECT)
    if given:
        return Path(os.path.abspath(given))
    here = Path.cwd()
    for folder in (here, *here.parents, *Path(__file__).resolve().parents):
        if (folder / "workspace.yaml").is_file() and (folder / "algobot.yaml").is_file():
            return folder
    return None


def require_project() -> Path:
    """Return the project's folder. SettingsError outside of a project."""
    root = project_root()
    if root is None or not (root / "dagster.yaml").is_file():
        raise SettingsError(
            f"{Path.cwd() if root is None else root} is not in a project: no algobot.yaml, workspace.yaml and "
            "dagster.yaml. Create a project with `algobot init mybot`, then run the command in its folder."
        )
    return root


def _base() -> Path:
    return project_root() or Path.cwd()


def _default_home() -> Path:
    root = project_root()
    if root is not None and os.access(root, os.W_OK):
        return root / ".algobot"
    return Path("~/.local/share/algobot").expanduser()


class Settings(BaseSettings):
    """All settings with their meaning. `Settings()` reads the environment; arguments override it.

    Raises SettingsError for an invalid setting; the message names the variable and never shows its value.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL of your own server. If unset, an embedded server runs in `home`."
    )
    direct_url: SecretStr | None = Field(
        None,
        description="Direct PostgreSQL URL, needed if database_url points to a pooler (pgbouncer). Used for "
        "Dagster's storage, migrations and locks that outlive a transaction.",
    )
    database: str = Field(
        "algobot",
        min_length=1,
        max_length=63,
        description="Name of the data database, unless database_url names one.",
    )
    dagster_database: str = Field(
        "dagster",
        min_length=1,
        max_length=63,
        description="Name of the database of Dagster's own storage, same server.",
    )
    pg_bin: Path | None = Field(None, description="bin folder of the PostgreSQL to embed instead of the bundled one.")
    home: Path = Field(
        default_factory=_default_home,
        description="Folder for everything the installation creates. Relative paths start at the project.",
    )
    state_file: Path = Field(
        Path("algobot.yaml"),
        validate_default=True,
        description="File with the declared state. Relative paths start at the project.",
    )
    source: str = Field(
        "",
        description="Where candles come from: binance, simulated, or a folder of klines. If unset: the last choice of "
        "`algobot demo` on this machine, else binance.",
    )
    exchange_url: str = Field("https://data-api.binance.vision", description="Binance's public REST API, spot.")
    futures_url: str = Field("https://fapi.binance.com", description="Binance's public REST API, USD-M futures.")
    archive_url: str = Field("https://data.binance.vision", description="Binance's public archive of klines.")
    connect_timeout: int = Field(10, ge=1, description="Seconds to wait for a database connection.")
    statement_timeout: float = Field(900, ge=0, description="Seconds an SQL statement may take; 0 for no limit.")
    lock_timeout: float = Field(60, ge=0, description="Seconds a statement waits for a lock; 0 for no limit.")
    refresh_minutes: int = Field(
        5,
        description="Minutes between refreshes: 5, 6, 10, 12, 15, 20, 30 or 60. The first one of an hour runs a minute "
        "past it, when the last candle has closed.",
    )
    alert_webhook: SecretStr | None = Field(
        None, description="URL to which failures and recoveries are POSTed as JSON. If unset, they are only logged."
    )
    alert_after: int = Field(3, ge=1, description="Consecutive failures of an asset or check that trigger an alert.")
    keep_runs_days: int = Field(
        90, ge=7, description="Days to keep Dagster's finished runs and their events. The status of partitions is kept."
    )
    client_cache_mb: int = Field(
        64, ge=0, description="Megabytes of frames that a client caches for repeated queries; 0 disables the cache."
    )
    retention_months: int = Field(
        24,
        description="Months of candles, indicators and signals to keep in PostgreSQL before archiving, 12 to 24.",
    )
    archive: str = Field(
        "",
        validate_default=True,
        description="Where archived months go: a folder or any fsspec URL (s3://bucket/folder needs s3fs). If unset: "
        "`archive` in `home`.",
    )
    reports_url: str = Field(
        "",
        description="Address that serves the folder `reports` in `home`, for links in Dagster's UI. "
        "`algobot up` serves it and sets this.",
    )

    def __init__(self, **values: Any) -> None:
        problem = None
        try:
            super().__init__(**{"_env_file": _base() / ".env", **values})
        except ValidationError as error:
            problem = "; ".join(
                f"{PREFIX}{'.'.join(map(str, item['loc'])).upper()}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors()
            )
        if problem is not None:  # raised outside the handler: the exception's context would hold the values
            raise SettingsError(f"Invalid setting. {problem}.")

    @field_validator("refresh_minutes")
    @classmethod
    def _parts_of_an_hour(cls, minutes: int) -> int:
        if minutes < 5 or 60 % minutes:
            raise ValueError("write 5, 6, 10, 12, 15, 20, 30 or 60")
        return minutes

    @field_validator("alert_webhook")
    @classmethod
    def _http(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("write a URL that starts with https:// or http://")
        return url

    @field_validator("home", "state_file")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return Path(os.path.abspath(_base() / path.expanduser()))

    @field_validator("retention_months")
    @classmethod
    def _kept(cls, months: int) -> int:
        if not 12 <= months <= 24:
            raise ValueError("write a number of months from 12 to 24")
        return months

    @field_validator("archive")
    @classmethod
    def _place(cls, place: str) -> str:
        if not place or "://" in place:
            return place.rstrip("/")
        return os.path.abspath(_base() / Path(place).expanduser())

    @property
    def archive_place(self) -> str:
        """The setting `archive`, or its default in `home`: an absolute folder or a URL."""
        return self.archive or str(self.home / "archive")

    @property
    def candles_from(self) -> str:
        """The setting `source`, or the last choice of `algobot demo`, else "binance"."""
        if self.source:
            return self.source
        remembered = self.home / "source"
        return remembered.read_text().strip() if remembered.is_file() else "binance"

    @property
    def exchange(self) -> str:
        """The exchange whose candles the database holds: "simulated", or "binance" (also for a folder of klines)."""
        return "simulated" if self.candles_from == "simulated" else "binance"
