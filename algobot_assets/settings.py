"""Settings of an installation, read from ALGOBOT_ variables and from the `.env` file of the project.

What is set once per machine or deployment belongs here: where the database is, where files go, how long to
wait. What changes results (markets, strategies, risk, configurations) belongs to the declared state.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from algobot_assets.errors import SettingsError

PREFIX = "ALGOBOT_"


def project_root() -> Path | None:
    """Return the folder of the checkout this package runs from: the nearest one above it with a workspace.yaml."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "workspace.yaml").is_file():
            return folder
    return None


def _base() -> Path:
    return project_root() or Path.cwd()


def _default_home() -> Path:
    root = project_root()
    if root is not None and os.access(root, os.W_OK):
        return root / ".algobot"
    return Path("~/.local/share/algobot").expanduser()


class Settings(BaseSettings):
    """Every setting with its meaning; `Settings()` reads the environment, arguments override it.

    Raises SettingsError that names the variable, and never shows the value, where one cannot be used.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=_base() / ".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL of another server; none: an embedded server is started in `home`."
    )
    direct_url: SecretStr | None = Field(
        None,
        description="PostgreSQL URL of the server itself where database_url leads to a pooler (pgbouncer): for "
        "Dagster's storage, migrations and locks that outlive a transaction.",
    )
    database: str = Field(
        "algobot",
        min_length=1,
        max_length=63,
        description="Database of the tables, unless database_url names one.",
    )
    dagster_database: str = Field(
        "dagster", min_length=1, max_length=63, description="Database of Dagster's own storage, same server."
    )
    pg_bin: Path | None = Field(None, description="bin folder of a PostgreSQL to embed instead of the packaged one.")
    home: Path = Field(
        default_factory=_default_home,
        description="Folder for what the installation creates; a relative path counts from the project.",
    )
    state_file: Path = Field(
        Path("algobot.yaml"),
        validate_default=True,
        description="The declared state; a relative path counts from the project.",
    )
    source: str = Field(
        "",
        description="Where candles come from: binance, simulated, or a folder of klines; none: what "
        "`algobot demo` chose last on this machine, else binance.",
    )
    exchange_url: str = Field("https://data-api.binance.vision", description="Binance's public REST, spot.")
    futures_url: str = Field("https://fapi.binance.com", description="Binance's public REST, USD-M futures.")
    archive_url: str = Field("https://data.binance.vision", description="Binance's public archive.")
    connect_timeout: int = Field(10, ge=1, description="Seconds to wait for a database connection.")
    statement_timeout: float = Field(900, ge=0, description="Seconds an SQL statement may take; 0: no limit.")
    lock_timeout: float = Field(60, ge=0, description="Seconds a statement waits for a lock; 0: no limit.")
    refresh_minutes: int = Field(
        5,
        description="Minutes between two refreshes of today: 5, 6, 10, 12, 15, 20, 30 or 60, counted from a minute "
        "after the hour, when the last candle has closed.",
    )
    alert_webhook: SecretStr | None = Field(
        None, description="URL that gets failures and recoveries as JSON by POST; none: they are only logged."
    )
    alert_after: int = Field(3, ge=1, description="Consecutive failures of an asset or check before an alert is sent.")
    keep_runs_days: int = Field(
        90, ge=7, description="Days that Dagster's finished runs and their events are kept; partition status stays."
    )
    client_cache_mb: int = Field(
        64, ge=0, description="Megabytes of frames that a client keeps for repeated questions; 0: none."
    )
    retention_months: int = Field(
        24, description="Months of candles, indicators and signals that PostgreSQL keeps, 12 to 24; then the archive."
    )
    archive: str = Field(
        "",
        validate_default=True,
        description="Where archived months go: a folder or any fsspec URL (s3://bucket/folder needs s3fs); none: "
        "`archive` in `home`.",
    )
    reports_url: str = Field(
        "",
        description="Address at which the folder `reports` in `home` is served, for links in Dagster's UI; "
        "`algobot up` serves it and sets this itself.",
    )

    def __init__(self, **values: object) -> None:
        problem = None
        try:
            super().__init__(**values)
        except ValidationError as error:
            problem = "; ".join(
                f"{PREFIX}{'.'.join(map(str, item['loc'])).upper()}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors()
            )
        if problem is not None:  # raised outside the handler, so that no context carries the values along
            raise SettingsError(f"A setting cannot be used. {problem}.")

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
            raise ValueError("write a URL that begins with https:// or http://")
        return url

    @field_validator("home", "state_file")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return Path(os.path.abspath(_base() / path.expanduser()))

    @field_validator("retention_months")
    @classmethod
    def _kept(cls, months: int) -> int:
        if not 12 <= months <= 24:
            raise ValueError("candles are kept for 12 to 24 months before they are archived; write a number between")
        return months

    @field_validator("archive")
    @classmethod
    def _place(cls, place: str) -> str:
        if not place or "://" in place:
            return place.rstrip("/")
        return os.path.abspath(_base() / Path(place).expanduser())

    @property
    def archive_place(self) -> str:
        """`archive`, or its default in `home`: an absolute folder or a URL."""
        return self.archive or str(self.home / "archive")

    @property
    def candles_from(self) -> str:
        """`source`, or what `algobot demo` chose last, else "binance"."""
        if self.source:
            return self.source
        remembered = self.home / "source"
        return remembered.read_text().strip() if remembered.is_file() else "binance"

    @property
    def exchange(self) -> str:
        """Which exchange's candles the data database holds: "simulated" or "binance" (a folder's too)."""
        return "simulated" if self.candles_from == "simulated" else "binance"
