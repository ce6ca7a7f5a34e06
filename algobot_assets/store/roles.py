"""Create a database's roles: an owner nobody logs in as, a writer for the pipeline, a reader for everyone else.

One SQL text grants each its rights; a migration runs it and `algobot db grants` prints it. Roles belong to the whole
server, so their names begin with the database's; its function role_for records them, because databases are copied and
renamed.

- owner, NOLOGIN: owns tables, views and functions, which run with its rights and a fixed search_path;
- writer: reads, inserts, updates and deletes rows through the parents; makes, holds and drops months by functions;
- reader: reads.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

from algobot_assets.store.session import fetch_row, fetch_value

Purpose = Literal["owner", "writer", "reader"]
PURPOSES: tuple[Purpose, ...] = ("owner", "writer", "reader")
_LONGEST = 63
"""The longest name in PostgreSQL, in bytes."""
#: The privilege that lets a session take the role; PostgreSQL 15 has one kind of membership.
_MAY_TAKE = "CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END"


@dataclass(frozen=True)
class Roles:
    """The names of a database's roles."""

    owner: str
    writer: str
    reader: str

    @classmethod
    def of(cls, database: str) -> Roles:
        """Derive the names from the database's; a name that is too long is cut and gets a digest."""
        names = {}
        for purpose in PURPOSES:
            name = f"{database}_{purpose}"
            if len(name.encode()) > _LONGEST:
                mark = f"_{hashlib.sha256(database.encode()).hexdigest()[:8]}_{purpose}"
                name = database.encode()[: _LONGEST - len(mark)].decode(errors="ignore") + mark
            names[purpose] = name
        return cls(**names)


def recorded(connection: psycopg.Connection) -> Roles | None:
    """Return the roles that the database records, if the server has all three."""
    if not _has_role_for(connection):
        return None
    row = fetch_row(
        connection.execute("SELECT public.role_for('owner'), public.role_for('writer'), public.role_for('reader')")
    )
    return Roles(*row) if all(row) else None


def _has_role_for(connection: psycopg.Connection) -> bool:
    return fetch_value(connection.execute("SELECT to_regprocedure('public.role_for(text)') IS NOT NULL"), bool)


def joins_prove_references(connection: psycopg.Connection) -> bool:
    """Return whether rows joined with their candles are inserted without checking each reference again.

    Only where a superuser has given the owner the right to switch these checks off, in one function.
    """
    row = fetch_row(
        connection.execute(
            """SELECT coalesce(bool_or(proconfig::text LIKE '%session_replication_role%'
                               AND has_parameter_privilege(proowner, 'session_replication_role', 'SET')), false)
                 FROM pg_proc WHERE proname = 'insert_staged' AND pronamespace = 'public'::regnamespace"""
        )
    )
    return bool(row[0])


def role_to_take(connection: psycopg.Connection, purpose: Purpose) -> str | None:
    """Return the role that a session of the platform takes; None if there is none or its login may not take it."""
    if not _has_role_for(connection):
        return None
    row = connection.execute(
        f"SELECT r FROM public.role_for(%s) AS r WHERE pg_has_role(session_user, r, {_MAY_TAKE})", (purpose,)
    ).fetchone()
    return row[0] if row else None


def establish(connection: psycopg.Connection) -> Roles | None:
    """Create the missing roles and grant each its rights; None, with nothing changed, if the login may not.

    Repeatable; called after every migration, so that new tables get their grants too. Part of the connection's
    transaction.
    """
    database, login = _names(connection)
    roles = recorded(connection) or Roles.of(database)
    try:
        with connection.transaction():
            for statement in (*_create_missing(connection, roles, database, login), grants(roles, database, login)):
                connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return None
    return roles


def _names(connection: psycopg.Connection) -> tuple[str, str]:
    """Return the names of the database and of the login."""
    database, login = fetch_row(connection.execute("SELECT current_database(), current_user"))
    return database, login


def _create_missing(connection: psycopg.Connection, roles: Roles, database: str, login: str) -> list[sql.Composed]:
    """Return statements that create the missing roles and let the login take them; a superuser may take any."""
    superuser = fetch_value(connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", (login,)), bool)
    statements: list[sql.Composed] = []
    for purpose in PURPOSES:
        name = getattr(roles, purpose)
        found = connection.execute("SELECT oid FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
        if found is None:
            statements += _create(name, purpose, database)
        elif superuser or _may_take(connection, name):
            continue
        if not superuser:
            statements.append(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(name)))
    return statements


def _may_take(connection: psycopg.Connection, name: str) -> bool:
    return fetch_value(connection.execute(f"SELECT pg_has_role(current_user, %s, {_MAY_TAKE})", (name,)), bool)


def _create(name: str, purpose: Purpose, database: str) -> list[sql.Composed]:
    return [
        sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)),
        sql.SQL("COMMENT ON ROLE {} IS {}").format(
            sql.Identifier(name), sql.Literal(f"algobot: {purpose} of database {database}")
        ),
    ]


def grants(roles: Roles, database: str, login: str) -> sql.Composed:
    """Return repeatable statements for each role's rights; the owner takes over all objects that ``login`` owns."""
    return sql.SQL(_GRANTS).format(
        **{f"{purpose}_name": sql.Literal(getattr(roles, purpose)) for purpose in PURPOSES},
        **{purpose: sql.Identifier(getattr(roles, purpose)) for purpose in PURPOSES},
        database=sql.Identifier(database),
        login_name=sql.Literal(login),
    )


def script(connection: psycopg.Connection) -> str:
    """Return the statements as text for psql, for an administrator to run if the login may not."""
    database, login = _names(connection)
    roles = recorded(connection) or Roles.of(database)
    lines = [f"-- Run in database {database} as an administrator."]
    for purpose in PURPOSES:
        for statement in _create(getattr(roles, purpose), purpose, database):
            lines.append(f"{statement.as_string(connection)};")
    names = sql.SQL(", ").join(sql.Identifier(getattr(roles, purpose)) for purpose in PURPOSES)
    grant = sql.SQL("GRANT {} TO {};").format(names, sql.Identifier(login))
    lines += [
        "-- The login that migrates is a member of all three:",
        grant.as_string(connection),
        grants(roles, database, login).as_string(connection).strip(),
        "-- One login that only reads, and one that runs the pipeline but cannot migrate:",
        f"-- CREATE ROLE somebody LOGIN IN ROLE {sql.Identifier(roles.reader).as_string(connection)};",
        f"-- CREATE ROLE somebody LOGIN IN ROLE {sql.Identifier(roles.writer).as_string(connection)};",
    ]
    return "\n".join(lines)


_GRANTS = """
GRANT USAGE, CREATE ON SCHEMA public TO {owner};
GRANT USAGE ON SCHEMA public TO {writer}, {reader};
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {writer};
GRANT TEMPORARY ON DATABASE {database} TO {owner};
GRANT CONNECT ON DATABASE {database} TO {reader};
CREATE OR REPLACE FUNCTION public.role_for(purpose text) RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT rolname FROM pg_roles
     WHERE rolname = CASE $1 WHEN 'owner' THEN {owner_name} WHEN 'writer' THEN {writer_name}
                             WHEN 'reader' THEN {reader_name} END
$$;
COMMENT ON FUNCTION public.role_for(text) IS
    'The role of this database for a purpose: owner, writer or reader; NULL where the server lacks it.';
ALTER FUNCTION public.role_for(text) OWNER TO {owner};
-- Partitions are written through their parents only; objects of an extension or another owner are left alone.
DO $$
DECLARE
    thing record;
    is_modern boolean := current_setting('server_version_num')::int >= 170000;
BEGIN
    FOR thing IN
        SELECT c.oid::regclass AS name, c.relkind, c.relispartition, c.relname, pg_get_userbyid(c.relowner) AS owner
          FROM pg_class AS c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
           AND pg_get_userbyid(c.relowner) IN ({login_name}, {owner_name})
           AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                                        AND d.deptype = 'e')
         ORDER BY c.relispartition, c.oid
    LOOP
        IF thing.owner <> {owner_name} THEN
            EXECUTE format('ALTER %s %s OWNER TO %I', CASE thing.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END,
                           thing.name, {owner_name});
        END IF;
        EXECUTE format('GRANT SELECT ON %s TO %I, %I', thing.name, {writer_name}, {reader_name});
        IF thing.relkind <> 'v' AND NOT thing.relispartition AND thing.relname <> 'alembic_version' THEN
            EXECUTE format('GRANT INSERT, UPDATE, DELETE ON %s TO %I', thing.name, {writer_name});
        END IF;
        IF thing.relkind = 'r' AND is_modern THEN
            EXECUTE format('GRANT MAINTAIN ON %s TO %I', thing.name, {writer_name});  -- VACUUM and ANALYZE
        END IF;
    END LOOP;
    FOR thing IN
        SELECT p.oid::regprocedure AS name FROM pg_proc AS p
         WHERE p.pronamespace = 'public'::regnamespace AND pg_get_userbyid(p.proowner) IN ({login_name}, {owner_name})
           AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                                                        AND d.deptype = 'e')
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO %I', thing.name, {owner_name});
        IF thing.name::text IN ('ensure_month(date)', 'hold_month(date)', 'drop_month(date)', 'open_stage(text)',
                                 'insert_staged(text,timestamp with time zone,timestamp with time zone)') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', thing.name, {writer_name});
        END IF;
    END LOOP;
    IF is_modern THEN
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA public GRANT MAINTAIN ON TABLES TO %I',
                       {owner_name}, {writer_name});
    END IF;
END
$$;
-- The function that inserts joined rows need not check their references again, row by row. Only a superuser can give
-- the owner this right; nobody else gets it, and without it the function checks them.
DO $$
BEGIN
    IF to_regprocedure('public.insert_staged(text, timestamptz, timestamptz)') IS NULL THEN
        RETURN;
    END IF;
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        GRANT SET ON PARAMETER session_replication_role TO {owner};
    END IF;
    IF has_parameter_privilege({owner_name}, 'session_replication_role', 'SET') THEN
        ALTER FUNCTION public.insert_staged(text, timestamptz, timestamptz) SET session_replication_role = 'replica';
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$$;
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT SELECT ON TABLES TO {writer}, {reader};
"""
