"""Names of databases for each library, and the settings they come from. No password ever shows."""

from __future__ import annotations

import contextlib
import os
import socket
import traceback
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict

from algobot_assets import settings as settings_module
from algobot_assets.errors import SettingsError, StoreError
from algobot_assets.settings import Settings
from algobot_assets.store.database import Database
from algobot_assets.store.server.control import status

PASSWORD = "S3cret /?#@:%41"
QUOTED = "S3cret%20%2F%3F%23%40%3A%2541"


def of(url: str, **values: object) -> Settings:
    return Settings(database_url=url, _env_file=None, **values)


@pytest.fixture
def unreachable() -> str:
    """A URL at a port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"postgresql://bot:{QUOTED}@127.0.0.1:{port}/prices?sslmode=disable"


def test_the_url_reaches_each_library_whole() -> None:
    database = Database.from_url(of(f"postgresql://bot:{QUOTED}@db.example:6432/prices?sslmode=verify-full"))
    assert database.name == "prices"
    expected = {
        "host": "db.example",
        "port": "6432",
        "user": "bot",
        "password": PASSWORD,
        "sslmode": "verify-full",
        "connect_timeout": "10",
        "application_name": "algobot",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    assert conninfo_to_dict(database.conninfo()) == expected | {"dbname": "prices"}
    assert conninfo_to_dict(database.conninfo("other"))["dbname"] == "other"
    for driver in ("psycopg", "psycopg2"):
        engine = sqlalchemy.create_engine(database.sqlalchemy_url("other", driver))
        assert engine.dialect.driver == driver
        arguments = engine.dialect.create_connect_args(engine.url)[1]
        given = {{"database": "dbname"}.get(key, key): str(value) for key, value in arguments.items()}
        assert expected | {"dbname": "other"} == {key: given[key] for key in (*expected, "dbname")}


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_usual_url_schemes_and_defaults_are_accepted(scheme: str) -> None:
    database = Database.from_url(of(f"{scheme}://bot@db.example", connect_timeout=3, database="fallback"))
    assert database.name == "fallback"
    assert conninfo_to_dict(database.conninfo())["connect_timeout"] == "3"


def test_a_url_with_several_hosts_keeps_them() -> None:
    database = Database.from_url(of("postgresql://bot@one:5432,two:5433/prices?target_session_attrs=read-write"))
    assert conninfo_to_dict(database.conninfo())["host"] == "one,two"
    engine = sqlalchemy.create_engine(database.sqlalchemy_url())
    arguments = engine.dialect.create_connect_args(engine.url)[1]
    assert (arguments["host"], arguments["port"]) == ("one,two", "5432,5433")


def test_the_password_never_shows(unreachable: str) -> None:
    settings = of(unreachable)
    database = Database.from_url(settings)
    shown = [repr(settings), str(settings), settings.model_dump_json(), repr(database), str(database)]
    shown.append(repr(status(settings)))
    for call in (database.connect, database.connectorx_url, database.ensure_database):
        with pytest.raises(StoreError, match=r"No connection to database .* at 127\.0\.0\.1") as caught:
            call()
        shown.append("".join(traceback.format_exception(caught.value)))
        assert caught.value.__context__ is None or "S3cret" not in str(caught.value.__context__)
    for text in shown:
        assert "S3cret" not in text, text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bot:S3cret%zz@db.example/prices",
        "mysql://bot:S3cret@db.example/prices",
        "bot:S3cret@db.example",
        "postgresql://bot:S3cret@db.example/prices?sslmodus=S3cret",
    ],
)
def test_an_invalid_url_is_refused_without_showing_it(url: str) -> None:
    for variable, settings in (
        ("ALGOBOT_DATABASE_URL", of(url)),
        ("ALGOBOT_DIRECT_URL", of("postgresql://bot@db.example/prices", direct_url=url)),
    ):
        with pytest.raises(SettingsError, match=f"{variable} is not a PostgreSQL URL") as caught:
            Database.from_url(settings)
        assert "S3cret" not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__context__ is None


def test_connectorx_is_not_used_where_it_would_check_less(monkeypatch: pytest.MonkeyPatch) -> None:
    class Used:
        host, port, user, password = b"db.example", b"6432", b"bot", PASSWORD.encode()

    class Connection:
        pgconn = Used
        parameters: dict[str, str]

        @property
        def info(self) -> Connection:
            return self

        def get_parameters(self) -> dict[str, str]:
            return self.parameters

    # No server here has certificates; what libpq reports of a connection is all that is replaced.
    def url(**parameters: str) -> str:
        Connection.parameters = parameters
        monkeypatch.setattr(Database, "connect", lambda *_: contextlib.nullcontext(Connection()))
        return Database.from_url(of("postgresql://bot@db.example/prices")).connectorx_url()

    head = f"postgresql://bot:{QUOTED}@db.example:6432/prices?"
    assert url() == f"{head}sslmode=prefer"
    assert url(sslmode="require") == f"{head}sslmode=require"
    assert url(sslmode="verify-ca", sslrootcert="/ca.pem") == f"{head}sslmode=require&sslrootcert=%2Fca.pem"
    for parameters in ({"sslmode": "verify-full"}, {"sslmode": "require", "sslcert": "/c.pem"}):
        with pytest.raises(StoreError, match="read through COPY"):
            url(**parameters)


def test_settings_name_the_variable_and_hide_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALGOBOT_LOCK_TIMEOUT", "S3cret")
    with pytest.raises(SettingsError, match="ALGOBOT_LOCK_TIMEOUT") as caught:
        Settings(_env_file=None)
    assert "S3cret" not in "".join(traceback.format_exception(caught.value))


def test_settings_come_from_the_environment_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text("ALGOBOT_DATABASE=from_file\nALGOBOT_LOCK_TIMEOUT=7\nALGOBOT_DATABASE_URL=\nOTHER=1\n")
    monkeypatch.setenv("ALGOBOT_DATABASE", "from_environment")
    found = Settings(_env_file=file)
    assert (found.database, found.lock_timeout, found.database_url) == ("from_environment", 7, None)


def test_relative_paths_count_from_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = settings_module.project_root()
    assert root is not None and (root / "workspace.yaml").is_file()
    monkeypatch.delenv("ALGOBOT_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    own = Path("~/.local/share/algobot").expanduser()
    assert Settings(_env_file=None).home == (root / ".algobot" if os.access(root, os.W_OK) else own)
    assert Settings(_env_file=None, home="a/../b").home == root / "b"
    assert Settings(_env_file=None).state_file == root / "algobot.yaml"
    monkeypatch.setattr(settings_module, "project_root", lambda: None)
    assert Settings(_env_file=None).home == own


def test_psycopg_itself_would_show_the_password() -> None:
    """The reason for the care above: libpq quotes a malformed part of a URL."""
    with pytest.raises(psycopg.ProgrammingError, match="S3cret"):
        conninfo_to_dict("postgresql://bot:S3cret%zz@db.example/prices")
