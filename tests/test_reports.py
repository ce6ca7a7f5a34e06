"""The pages: what they say equals the database, they draw in a real browser, zoom, and ask nothing of the network.

Screenshots go to the folder that ALGOBOT_SCREENSHOTS names, else to the test's own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from urllib.request import urlopen

import dagster as dg
import polars as pl
import pytest
from browser import browser
from click.testing import CliRunner
from conftest import Project, published_candles

from algobot_assets.audit.diff import choose, compare
from algobot_assets.cli.app import cli
from algobot_assets.compute.metrics.curves import buy_and_hold, equity_curve, monthly_returns, rolling_sharpe
from algobot_assets.compute.metrics.performance import FIGURES
from algobot_assets.definitions import build_defs
from algobot_assets.errors import WindowError
from algobot_assets.reports.candles import MOST, NEWEST, levels
from algobot_assets.reports.facts import Reader
from algobot_assets.reports.warnings import warnings_of
from algobot_assets.reports.writing import write_comparison, write_reports
from algobot_assets.research.request import Request
from algobot_assets.research.sweep import sweep
from algobot_assets.schema.column_lineage import COLUMN_LINEAGE
from algobot_assets.schema.tables import NINE, metadata
from algobot_assets.store.connection import Store

DRAWN = "document.documentElement.dataset.drawn !== undefined"
FIRST, LAST = date(2024, 1, 30), date(2024, 3, 20)


@pytest.fixture
def filled(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """Fifty days of two strategies, and a gap whose evidence wants to be markup."""
    monkeypatch.setenv("ALGOBOT_HOME", str(tmp_path / "home"))
    project.publish(published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 51))
    assert project.run(FIRST, LAST).success
    with Store.open() as store, store.transaction() as connection:
        connection.execute(
            """INSERT INTO gaps (symbol, "interval", first_open, end_open, reason, evidence)
               VALUES ('BTCUSDT', '1h', '2024-02-03', '2024-02-03 02:00', 'outage', '<b>nothing</b>')"""
        )
    return project


def rows(store: Store, statement: str, *parameters: object) -> list[tuple]:
    """What the database says."""
    with store.transaction() as connection:
        return connection.execute(statement, parameters).fetchall()


def told(page: str, kind: str) -> dict[str, str]:
    """The exact values a page carries, by name."""
    found = re.findall(rf'data-{kind}="([^"]*)" data-value="([^"]*)"', page)
    return dict(found)


def check_curves(store: Store) -> None:
    """The equity curve is that of the table, and its Sharpe ratio and return too."""
    reader = Reader(store)
    for item in reader.versions:
        facts = reader.facts(item)
        statement = "SELECT day, final_capital FROM backtest_results WHERE strategy_id = %s ORDER BY day"
        stored = rows(store, statement, item.id)
        assert facts.curve.select("day", "equity").rows() == [(day, float(value)) for day, value in stored]
        whole = rolling_sharpe(facts.curve["daily_return"], facts.curve.height)[-1]
        assert whole == pytest.approx(float(facts.last["sharpe_ratio"]), abs=1e-8)
        product = (monthly_returns(facts.curve)["monthly_return"] + 1).product() - 1
        assert product == pytest.approx(float(facts.last["total_return"]), abs=1e-7)
        # days see no more of a fall than candles do
        assert facts.curve["drawdown"].min() >= float(facts.last["max_drawdown"]) - 1e-8


def test_pages_show_the_stored_figures(filled: Project, store: Store, tmp_path: Path) -> None:
    check_curves(store)
    check_difference(store, tmp_path)
    swept = sweep(store, Request("cross", ("fast=3,5,8", "slow=13,21")))
    written = write_reports(store, tmp_path / "pages")
    assert [page.item.name for page in written] == ["cross", "rules"]
    index = (tmp_path / "pages" / "index.html").read_text()
    for page in written:
        text = page.path.read_text()
        stored = store.retrying(
            lambda c, page=page: c.execute(
                f"SELECT {', '.join(FIGURES)}, total_trades FROM backtest_results WHERE strategy_id = %s "
                "ORDER BY day DESC LIMIT 1",
                (page.item.id,),
            ).fetchone(),
            "reading",
        )
        check_sweep(store, swept.sweep_id, text, page.item.name == "cross")
        metrics = told(text, "metric")
        for name, value in zip((*FIGURES, "total_trades"), stored, strict=True):
            assert metrics[name] == ("" if value is None else format(value, "f" if name in FIGURES else ""))
        assert told(text, "figure").items() <= metrics.items()
        trades = rows(
            store,
            "SELECT id, net_profit FROM trade_history WHERE strategy_id = %s ORDER BY exit_time DESC, entry_time DESC",
            page.item.id,
        )
        listed = re.findall(r'<tr id="trade-(\d+)"[^>]* data-net="([^"]*)"', text)
        assert [(int(i), Decimal(net)) for i, net in listed] == trades[:100]
        assert "computed again from the recorded state: the same signal" in text
        assert "<script src" not in text and "&lt;b&gt;nothing" in text and "<b>nothing" not in text
        assert f'<a href="{page.path.name}">{page.item.name}</a>' in index

    written = write_reports(store, tmp_path / "one", "cross")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["cross.html", "index.html"]
    assert written[0].path == tmp_path / "one" / "cross.html"
    with pytest.raises(WindowError, match="nearest stored strategy is cross"):
        write_reports(store, tmp_path / "one", "crosss")


def check_difference(store: Store, tmp_path: Path) -> None:
    """Two results part where SQL says, in the terminal and on the page."""
    found = compare(store, *choose(store, "cross", "rules"))
    assert {cause.kind for cause in found.causes} == {"code", "parameter"}
    assert found.candle is None  # one market: the same candles
    first = rows(
        store,
        """SELECT timestamp, a.signal, b.signal FROM signals AS a JOIN signals AS b USING (timestamp)
            WHERE a.strategy_id = %s AND b.strategy_id = %s AND a.signal <> b.signal ORDER BY 1""",
        found.a.id,
        found.b.id,
    )
    assert (found.signal.at, found.signal.a["signal"], found.signal.b["signal"]) == first[0]
    assert (found.signal.differing, found.signal.compared) == (len(first), 24 * 51)
    assert found.trade.at == rows(store, "SELECT min(entry_time) FROM trade_history")[0][0]
    said = CliRunner().invoke(cli, ["diff", "cross", "rules"])
    assert said.exit_code == 0 and f"First signal: {first[0][0]:%Y-%m-%d %H:%M}" in said.output
    assert max(map(len, said.output.splitlines())) <= 80
    told = json.loads(CliRunner().invoke(cli, ["diff", "cross", "rules", "--json"]).output)
    assert told["figures"]["total_trades"]["a"] == found.figures["total_trades"][0]
    page = write_comparison(found, tmp_path).read_text()
    assert "strategy_type" in page and f"{first[0][0]:%Y-%m-%d %H:%M}" in page
    with pytest.raises(WindowError, match="has no earlier version"):
        choose(store, "cross", None)
    with pytest.raises(WindowError, match="Both are cross version 1"):
        choose(store, "cross", "cross@1")


def check_sweep(store: Store, sweep_id: int, page: str, shown: bool) -> None:
    """Combinations ranked by their Sharpe ratio, what was swept of each, the strategy's own marked."""
    section = page.partition('<section id="sweeps"')[2].partition("</section>")[0]
    assert bool(section) == shown
    if shown:
        ranked = rows(
            store,
            "SELECT combination, total_return FROM sweep_results WHERE sweep_id = %s "
            "ORDER BY sharpe_ratio DESC NULLS LAST, combination",
            sweep_id,
        )
        lines = re.findall(r'<tr data-combination="(\d+)"(.*?)</tr>', section, re.DOTALL)
        assert [int(number) for number, _ in lines] == [number for number, _ in ranked] and len(ranked) == 6
        for (_, line), (_, value) in zip(lines, ranked, strict=True):
            assert f">{100 * value:,.2f} %<" in line and "stop_loss" not in line
        assert [("fast=5, slow=13" in line) for _, line in lines] == [("this strategy" in line) for _, line in lines]
        assert section.count("this strategy") == 1 and section.count("stop_loss_percentage=2") == 1
        assert "Chosen among many" in page


def test_the_asset_links_the_pages_and_a_small_sample_is_named(
    filled: Project, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_column_lineage(filled.instance)
    result = build_defs().resolve_job_def("report").execute_in_process(instance=filled.instance)
    found = result.asset_materializations_for_node("tear_sheets")[0].metadata
    assert Path(found["comparison"].value).is_file() and found["pages"].value == 2
    assert found["results"].value.count("data:image/svg+xml;base64,") == 2
    monkeypatch.setenv("ALGOBOT_REPORTS_URL", "http://127.0.0.1:3001/")
    result = build_defs().resolve_job_def("report").execute_in_process(instance=filled.instance)
    found = result.asset_materializations_for_node("tear_sheets")[0].metadata
    assert found["comparison"].value == "http://127.0.0.1:3001/index.html"
    assert isinstance(found["cross v1"], dg.UrlMetadataValue)
    assert "(http://127.0.0.1:3001/cross.html)" in found["results"].value

    reader = Reader(store)
    facts = reader.facts(reader.choose("cross"))
    titles = {warning.title: warning.text for warning in warnings_of(facts)}
    assert "rule: fewer than 365" in titles["Less than a year"]
    assert ("Too few trades" in titles) == (facts.last["total_trades"] < 30)
    with store.transaction() as connection:
        connection.execute("UPDATE market_data SET close = close + 1 WHERE timestamp = '2024-02-10'")
    stale = [w for w in warnings_of(Reader(store).facts(facts.item)) if w.title == "Not up to date"]
    assert stale and "algobot refresh" in stale[0].text


def check_column_lineage(instance: dg.DagsterInstance) -> None:
    """It names columns that are there, and is with the newest materialisation."""
    for table, columns in COLUMN_LINEAGE.items():
        sources = [source for found in columns.values() for source in found]
        for name, column in ((table, column) for column in columns):
            assert column in metadata.tables[name].columns
        for name, column in sources:
            assert column in metadata.tables[name].columns and name in NINE
    event = instance.get_latest_materialization_event(dg.AssetKey("backtest_results"))
    assert "dagster/column_lineage" in event.asset_materialization.metadata


def test_pages_are_served_as_long_as_who_started_it_lives(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("a page")
    start = "import sys; from pathlib import Path; from algobot_assets.reports.serving import start; "
    start += f"print(start(Path({str(tmp_path)!r}), '127.0.0.1', 0), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        address = parent.stdout.readline().decode().strip()
        assert urlopen(f"{address}/index.html", timeout=60).read() == b"a page"
        parent.stdin.close()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            urlopen(address, timeout=5).close()
        except OSError:
            return
        time.sleep(0.1)
    raise AssertionError("it is still served")


def test_coarser_candles_hold_the_same_extremes() -> None:
    count = 3 * MOST
    minutes = pl.DataFrame({"n": range(count)}).select(
        (pl.lit(datetime(2024, 1, 1, tzinfo=UTC)) + pl.duration(minutes=pl.col("n"))).alias("timestamp"),
        *(
            (pl.col("n") % 997 + shift).cast(pl.Float64).alias(name)
            for name, shift in {
                "open": 1,
                "high": 3,
                "low": 0,
                "close": 2,
                "ema": 1,
                "rsi": 1,
                "atr": 1,
                "vwap": 1,
            }.items()
        ),
    )
    found = levels(minutes, "1m")
    assert [(level["interval"], level["whole"], level["exact"]) for level in found] == [
        ("1d", True, False),
        ("4h", True, False),
        ("1h", True, False),
        ("15m", True, False),
        ("5m", True, False),
        ("1m", False, True),
    ]
    for level in found[:-1]:
        assert (max(level["h"]), min(level["l"])) == (minutes["high"].max(), minutes["low"].min())
        assert (level["o"][0], level["c"][-1]) == (minutes["open"][0], minutes["close"][-1])
    assert len(found[-1]["t"]) == NEWEST and found[-1]["c"] == minutes["close"].tail(NEWEST).to_list()


def test_hold_keeps_the_last_close_and_begins_with_the_first_candle() -> None:
    opens = [datetime(2024, 1, 2, hour, tzinfo=UTC) for hour in (0, 23)] + [datetime(2024, 1, 4, tzinfo=UTC)]
    candles = pl.DataFrame({"timestamp": opens, "open": [10.0, 11.0, 9.0], "close": [11.0, 12.0, 8.0]})
    days = pl.Series("day", [date(2024, 1, day) for day in range(1, 6)])
    worth = buy_and_hold(candles, days, 100.0, "1h", None).to_list()
    assert worth[0] is None and worth[1:] == pytest.approx([120.0, 120.0, 80.0, 80.0])
    equity = [90.0, 99.0, 110.0, 55.0, 55.0]
    results = pl.DataFrame({"day": days, "initial_capital": [100.0] * 5, "final_capital": equity})
    assert equity_curve(results)["drawdown"].to_list() == pytest.approx([-0.1, -0.01, 0.0, -0.5, -0.5])


def test_pages_draw_and_zoom_in_a_browser(filled: Project, store: Store, tmp_path: Path) -> None:
    written = write_reports(store, tmp_path / "pages")
    shots = Path(os.environ.get("ALGOBOT_SCREENSHOTS", tmp_path / "shots"))
    page = next(page for page in written if page.item.name == "cross")
    with browser(tmp_path) as tab:
        tab.look(dark=False)
        tab.open(page.path.as_uri(), DRAWN)
        light = tab.picture(shots / "strategy-light.png", whole=True)
        ids = tab.ask("[...document.querySelectorAll('.chart')].map(place => place.id)")
        assert len(ids) == 6
        shown = tab.ask("document.querySelector('#chart-equity').data[0].y.at(-1)")
        assert shown == pytest.approx(float(page.last["final_capital"]), abs=0.005)

        before = tab.ask("document.querySelector('#chart-candles').layout.xaxis.range.map(Number)")
        tab.ask("document.querySelector('#candles').scrollIntoView({behavior: 'instant'})")
        place = "document.querySelector('#chart-candles .nsewdrag').getBoundingClientRect()"
        box = tab.ask(f"(({{x, y, width}}) => [x, y, width])({place})")
        tab.drag(box[0] + box[2] * 0.3, box[0] + box[2] * 0.6, box[1] + 60)
        tab.until("document.querySelector('#chart-candles').layout.xaxis.range[0] > " + str(before[0]))
        after = tab.ask("document.querySelector('#chart-candles').layout.xaxis.range.map(Number)")
        assert (after[1] - after[0]) == pytest.approx(0.3 * (before[1] - before[0]), rel=0.05)
        assert tab.picture(shots / "strategy-zoomed.png") != light
        tab.ask("document.querySelector('[data-span=\"0\"]').click()")
        assert tab.ask("document.querySelector('#chart-candles').dataset.candles") == str(24 * 51)

        tab.ask("document.querySelector('[data-why]').click()")
        assert "Entry signal" in tab.ask("document.querySelector('tr.why:not([hidden])').innerText")

        tab.look(390, 800, dark=True)  # the page follows without being loaded again
        tab.until("document.querySelector('#chart-equity').layout.font.color !== '#1b2027'")
        tab.picture(shots / "strategy-phone-dark.png", whole=True)
        assert tab.ask("document.documentElement.scrollWidth") <= 390

        tab.look()
        for each in ids:  # with its marks a chart looks otherwise than with its axes alone
            drawn = tab.settled(f"#{each}")
            tab.ask(f"Plotly.restyle('{each}', {{visible: false}}).then(() => true)")
            assert tab.picture(of=f"#{each}") != drawn, each
        tab.open((tmp_path / "pages" / "index.html").as_uri(), DRAWN)
        tab.picture(shots / "index.png", whole=True)
        assert tab.ask("document.querySelectorAll('#chart-overlay .scatterlayer .trace').length") == 3
        assert tab.problems == []
        assert all(url.startswith(("file://", "data:", "blob:")) for url in tab.requests)
