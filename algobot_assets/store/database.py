"""Connect to a database by name, on any kind of server, and create or drop whole databases.

Each client library gets the connection string it needs: psycopg, SQLAlchemy and connectorx.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, urlencode

import psycopg
import sqlalchemy
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from algobot_assets.errors import SettingsError, StoreError
from algobot_assets.settings import Settings
from algobot_assets.store.session import Session, is_pooled, open_session, place_of

MAINTENANCE = "postgres"
"""The database every server has; others are created and dropped from there."""

_CREATE_KEY = 0x616C676F
"""Advisory lock for creating databases: two concurrent copies of one template would both fail."""


OLDEST = 150000
"""The first version with MERGE, as libpq numbers versions."""


_DEAD_WIRE = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""libpq's options that detect a dead connection within about a minute, for every driver."""

GRACE = 30.0
"""Seconds beyond the statement timeout after which a silent server counts as hung."""


@dataclass(frozen=True, repr=False)
class Database:
    """A database on a server. Methods take another name for another database of that server.

    Behind a connection pooler `conninfo` leads through the pooler, for transactions; `connect` and `sqlalchemy_url`
    bypass it by ``direct``, for everything that needs a session: locks, migrations, Dagster's storage.

    `repr` and every error name host, user and database, never the password. The strings that the URL methods return
    contain it: they are for the libraries, not for logs.
    """

    name: str
    parameters: Mapping[str, str]
    """libpq parameters without dbname; may contain a password."""
    direct: Mapping[str, str] | None = field(default=None, kw_only=True)
    """The same for the server itself, if ``parameters`` lead to a pooler."""
    statement_timeout: float = field(default=0, kw_only=True)
    lock_timeout: float = field(default=0, kw_only=True)

    @classmethod
    def from_url(cls, settings: Settings) -> Database:
        """Return the database of `settings.database_url`; SettingsError if that or `direct_url` is not a valid URL."""
        name, parameters = _parse_url("ALGOBOT_DATABASE_URL", settings.database_url, settings)
        direct = None
        if settings.direct_url is not None:
            meant, direct = _parse_url("ALGOBOT_DIRECT_URL", settings.direct_url, settings)
            if meant != name:
                raise SettingsError(
                    f"ALGOBOT_DATABASE_URL names database {name} and ALGOBOT_DIRECT_URL {meant}; both must lead to "
                    "one database under one name."
                )
        return cls(
            name,
            parameters,
            direct=direct,
            statement_timeout=settings.statement_timeout,
            lock_timeout=settings.lock_timeout,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r} at {self.location})"

    @property
    def location(self) -> str:
        """Host and port for people, without user and password."""
        return place_of(self.parameters)

    @property
    def patience(self) -> float:
        """Seconds to wait for an answer: the server's statement timeout plus a margin; 0: forever."""
        return self.statement_timeout + GRACE if self.statement_timeout else 0

    def conninfo(self, dbname: str | None = None) -> str:
        """Return the string for psycopg, for transactions only: a pooler may run each in another session."""
        return make_conninfo("", **self.parameters, dbname=dbname or self.name)

    def sqlalchemy_url(self, dbname: str | None = None, driver: Literal["psycopg", "psycopg2"] = "psycopg") -> str:
        """Return the URL for SQLAlchemy, Alembic and Dagster, bypassing a pooler.

        It names the driver because SQLAlchemy's default changed with 2.1.
        """
        query = dict(self.direct or self.parameters)
        user, password = query.pop("user", None), query.pop("password", None)
        url = sqlalchemy.URL.create(f"postgresql+{driver}", user, password, database=dbname or self.name, query=query)
        return url.render_as_string(hide_password=False)

    def connectorx_url(self, dbname: str | None = None) -> str:
        """Return the URL for connectorx, which knows neither PG* variables nor password files nor service files.

        Connects once through libpq and passes on its parameters, so that a bad login fails here at once; connectorx
        would retry it for 30 seconds. Raises StoreError for a bad login, and if the server is to be checked by host
        name or the client by certificate: connectorx can do neither.
        """
        with self.connect(dbname) as connection:
            used, given = connection.pgconn, connection.info.get_parameters()
            host, port = used.host.decode(), used.port.decode()
            user, password = used.user.decode(), used.password.decode()
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        place = f"[{host}]" if ":" in host else quote(host, safe="")
        url = f"postgresql://{login}@{place}:{port}/{quote(dbname or self.name, safe='')}"
        if host.startswith("/"):
            return url
        mode = given.get("sslmode", "prefer")
        if mode == "verify-full" or "sslcert" in given:
            raise StoreError(
                f"connectorx cannot honour sslmode={mode} with its certificates for {self.location}; "
                "read through COPY instead."
            )
        options = {"sslmode": {"allow": "prefer", "verify-ca": "require"}.get(mode, mode)}
        if "sslrootcert" in given:
            options["sslrootcert"] = given["sslrootcert"]
        return f"{url}?{urlencode(options)}"

    def connect(self, dbname: str | None = None, *, autocommit: bool = False) -> Session:
        """Open a session on the server, in UTC and with the settings' timeouts.

        Raises StoreError if the server cannot be reached or is too old, and if only a pooler is known.
        """
        name = dbname or self.name
        parameters = self.direct or self.parameters
        connection = open_session(parameters, name)
        problem, place = "", place_of(parameters)
        if connection.info.server_version < OLDEST:
            version = connection.info.parameter_status("server_version")
            problem = f"The server at {place} is PostgreSQL {version}; {OLDEST // 10000} or newer is needed."
        elif self.direct is None and is_pooled(connection):
            problem = (
                f"A connection pooler answers at {place}. Set ALGOBOT_DIRECT_URL to the server behind it, for "
                "Dagster's storage, migrations and locks; data keeps going through the pooler."
            )
        if problem:
            connection.close()
            raise StoreError(problem)
        connection.patience = self.patience
        # By statement, because connection poolers refuse libpq's start-up option.
        connection.execute(
            "SELECT set_config('TimeZone', 'UTC', false), set_config('statement_timeout', %s, false),"
            " set_config('lock_timeout', %s, false)",
            [f"{self.statement_timeout * 1000:.0f}", f"{self.lock_timeout * 1000:.0f}"],
        )
        connection.autocommit = autocommit
        return connection

    def check(self) -> None:
        """Connect as transactions will, through a pooler if there is one; StoreError gives the reason if that fails."""
        open_session(self.parameters, self.name).close()

    def ensure_database(self, name: str | None = None, *, template: str = "template0") -> None:
        """Create the database if it is missing; any number of processes may do so at the same time.

        An existing database is not changed, even if its template differs. Raises StoreError if the user may not
        create it.
        """
        name = name or self.name
        with self._maintenance() as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone()
            if found is not None:
                return
            connection.execute("SELECT pg_advisory_lock(%s)", [_CREATE_KEY])
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8'").format(
                sql.Identifier(name), sql.Identifier(template)
            )
            try:
                connection.execute(statement)
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                return
            except psycopg.errors.InsufficientPrivilege:
                raise StoreError(
                    f"User {connection.info.user} may not create database {name} at {self.location}. Let an "
                    f"administrator run: CREATE DATABASE {name} OWNER {connection.info.user} ENCODING 'UTF8'."
                ) from None
            except psycopg.errors.ObjectInUse:
                raise StoreError(
                    f"Database {name} cannot be created from {template} while somebody is connected to that. "
                    "Close those connections first."
                ) from None

    def drop_database(self, name: str) -> None:
        """Drop a database with all its contents and end its connections, if it exists."""
        with self._maintenance() as connection:
            statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            connection.execute(statement)

    def _maintenance(self) -> Session:
        """Connect where all databases are visible: to `postgres`, or to our own if a hosted server denies that."""
        try:
            return self.connect(MAINTENANCE, autocommit=True)
        except StoreError:
            if self.name == MAINTENANCE:
                raise
            return self.connect(autocommit=True)


def _parse_url(variable: str, url: SecretStr | None, settings: Settings) -> tuple[str, dict[str, str]]:
    """Return database name and libpq parameters of a URL. SettingsError names the variable, never the value."""
    scheme, separator, rest = (url.get_secret_value() if url else "").partition("://")
    parameters: dict[str, str] | None = None
    if separator and scheme.partition("+")[0] in ("postgresql", "postgres"):
        try:
            parameters = {k: str(v) for k, v in conninfo_to_dict(f"postgresql://{rest}").items()}
        except psycopg.Error:  # libpq quotes the offending part of the URL, which may be the password
            parameters = None
    if parameters is None:
        raise SettingsError(
            f"{variable} is not a PostgreSQL URL. Write postgresql://user:password@host/name, "
            "special characters of the password percent-encoded."
        )
    name = parameters.pop("dbname", settings.database)
    parameters.setdefault("connect_timeout", str(settings.connect_timeout))
    parameters.setdefault("application_name", "algobot")
    for option, value in _DEAD_WIRE.items():
        parameters.setdefault(option, value)
    return name, parameters
