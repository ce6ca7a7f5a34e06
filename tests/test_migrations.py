"""Migrations: up gives what the metadata says, down leaves nothing, and months have their leaves."""

from __future__ import annotations

from datetime import date

import psycopg
import pytest

from algobot_assets.schema.tables import MONTHLY, NINE, metadata
from algobot_assets.store import migrate
from algobot_assets.store.connection import Store
from algobot_assets.store.month_partitions import ensure_months, leaf, months_present


def test_the_migrated_database_equals_the_metadata(database_url, store):
    assert migrate.differences(store.database.sqlalchemy_url()) == []
    current, head = migrate.current_and_head(store.database.sqlalchemy_url())
    assert current == head


def test_every_table_and_column_says_what_it_is(store):
    with store.transaction() as connection:
        uncommented = connection.execute(
            """SELECT c.relname, a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
                WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                  AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> 'alembic_version'
                  AND col_description(c.oid, a.attnum) IS NULL"""
        ).fetchall()
        tables = connection.execute(
            """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
                  AND NOT relispartition AND relname <> 'alembic_version' AND obj_description(oid) IS NULL"""
        ).fetchall()
    assert uncommented == []
    assert tables == []
    assert set(NINE) < set(metadata.tables)


def test_down_leaves_nothing_and_up_again_works(database_url, store):
    url = store.database.sqlalchemy_url()
    ensure_months(store, [date(2024, 1, 1)])
    migrate.downgrade(url)
    with store.transaction() as connection:
        left = connection.execute(
            """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
                  AND relname NOT LIKE 'alembic_version%'
               UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"""
        ).fetchall()
    assert left == []
    migrate.upgrade(url)
    assert migrate.differences(url) == []


def test_a_month_gets_three_leaves_with_references_between_leaves(store):
    month = date(2024, 2, 1)
    assert ensure_months(store, [month, date(2024, 2, 17), month]) == [month]
    assert ensure_months(store, [month]) == []
    with store.transaction() as connection:
        assert months_present(connection) == [month]
        references = connection.execute(
            """SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint
                WHERE contype = 'f' AND conname LIKE '%market_data_fkey' ORDER BY 1"""
        ).fetchall()
    assert references == [(leaf(t, month), leaf("market_data", month)) for t in MONTHLY[1:]]


def test_a_row_without_a_leaf_is_refused(store):
    with pytest.raises(psycopg.errors.CheckViolation), store.transaction() as connection:
        connection.execute(
            """INSERT INTO indicators (market_data_id, symbol, "interval", "timestamp")
               VALUES (1, 'BTCUSDT', '1h', '2031-01-01T00:00Z')"""
        )


def test_leaves_are_made_while_a_reader_is_in_the_parent(store, database_url):
    with store.transaction() as reader:
        reader.execute("SELECT count(*) FROM market_data")
        with Store.open() as other:
            assert ensure_months(other, [date(2024, 5, 1)]) == [date(2024, 5, 1)]
