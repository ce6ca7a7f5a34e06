"""Reads through connectorx: under the settings of the store, as sentences when they fail, by psycopg where need be."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest

from algobot_assets.errors import StoreError
from algobot_assets.store.connection import Store
from algobot_assets.store.reader import query


def test_connectorx_reads_under_the_settings_of_the_store(store):
    shown = query(store, "SELECT current_setting('statement_timeout') AS a, current_setting('TimeZone') AS b")
    assert shown.row(0) == ("15min", "UTC")
    with Store(store.database, "reader", read_only=True) as reader:
        assert query(reader, "SELECT current_setting('transaction_read_only') AS r").item() == "on"
        assert "reader" in query(reader, "SELECT current_setting('application_name') AS n").item()
        with pytest.raises(StoreError, match="read-only"):
            query(reader, "INSERT INTO exchange (only_row, name) VALUES (true, 'binance') RETURNING name")


def test_a_failing_query_is_one_sentence(store):
    with pytest.raises(StoreError, match=r"The query failed in the database: .*no_such_table"):
        query(store, "SELECT * FROM no_such_table")


def test_a_login_that_connectorx_cannot_do_is_read_by_psycopg(store, monkeypatch):
    text = "SELECT 1.10000000::numeric(20,8) AS d, 'x' AS s, NULL::int AS n"
    schema = {"d": pl.Decimal(20, 8), "s": pl.String(), "n": pl.Int32()}
    expected = query(store, text, schema=schema)

    def refuse(_self):
        raise StoreError("connectorx cannot check the server's certificate")

    monkeypatch.setattr(type(store.database), "connectorx_url", refuse)
    with Store(store.database) as other:
        got = query(other, text, schema=schema)
    assert got.equals(expected)
    assert got.row(0) == (Decimal("1.10000000"), "x", None)


def test_parameters_are_values_and_never_statements(store):
    text = "x'); DROP TABLE market_data; --"
    assert query(store, "SELECT %s AS t", (text,)).item() == text
    assert query(store, "SELECT count(*) AS n FROM market_data").item() == 0
