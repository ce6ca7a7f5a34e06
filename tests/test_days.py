"""Which days a command, a run or a schedule may cover."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from conftest import START, Project, published_candles

from algobot_assets.cli import runs
from algobot_assets.declared.state_file import StateFile
from algobot_assets.errors import SettingsError
from algobot_assets.feed.open import CandleFeed
from algobot_assets.pipeline.days import NewestDay, fit_days, newest_day, outdated_markets, require_days, today

NEWEST = NewestDay(date(2024, 2, 7), "the candles of the folder x end at 2024-02-08 00:00 UTC")


def test_a_reversed_range_is_refused_in_one_sentence():
    with pytest.raises(SettingsError, match=r"ends on 2020-01-01, before it starts on 2020-01-04"):
        require_days(date(2020, 1, 4), date(2020, 1, 1))


def test_days_before_the_first_partition_and_in_the_future_are_refused():
    with pytest.raises(SettingsError, match=r"2016-01-01 lies before the first partition, 2017-07-01"):
        require_days(date(2016, 1, 1), date(2020, 1, 1))
    tomorrow = today() + timedelta(days=1)
    with pytest.raises(SettingsError, match=f"{tomorrow} lies in the future"):
        require_days(tomorrow, tomorrow)
    require_days(today(), today())


def test_days_beyond_the_source_are_skipped_with_a_remark_or_refused():
    found = fit_days(START, date(2024, 3, 1), NEWEST)
    assert (found.first, found.last) == (START, date(2024, 2, 7))
    assert found.remark == f"Days after 2024-02-07 are skipped: {NEWEST.reason}."
    assert fit_days(START, START, NEWEST).remark is None
    with pytest.raises(SettingsError, match=r"no candles on 2024-02-08: the candles of the folder x end at"):
        fit_days(date(2024, 2, 8), date(2024, 2, 9), NEWEST)


def test_a_range_before_every_market_has_started_is_refused(tmp_path: Path):
    path = tmp_path / "algobot.yaml"
    path.write_text("markets:\n  - {symbol: BTCUSDT, interval: 1h, start: 2030-01-01}\n")
    markets = StateFile(str(path)).load().markets
    with pytest.raises(SettingsError, match=r"No declared market has started by 2024-02-07: .* starts on 2030-01-01"):
        fit_days(START, date(2024, 2, 7), NEWEST, markets)


def test_the_newest_day_of_a_folder_is_the_last_one_with_candles(tmp_path: Path):
    (tmp_path / "spot").mkdir()
    file = tmp_path / "spot" / "BTCUSDT-1h-all.parquet"
    published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9).write_parquet(file)
    assert newest_day(CandleFeed(str(tmp_path))).day == date(2024, 2, 7), "it ends at midnight"
    published_candles(datetime(2024, 1, 30, tzinfo=UTC), 24 * 9 + 7).write_parquet(file)
    assert newest_day(CandleFeed(str(tmp_path))).day == date(2024, 2, 8)
    assert newest_day(CandleFeed(str(tmp_path)), stored_through=date(2024, 3, 1)).day == date(2024, 3, 1)
    assert newest_day(CandleFeed("binance")).day == today(), "an exchange is not asked"


def test_a_run_over_days_that_do_not_exist_is_refused_before_dagster_sees_it():
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(SettingsError, match="lies in the future"):
            runs.materialise(instance, date(2100, 1, 1), date(2100, 1, 2))
        with pytest.raises(SettingsError, match="before it starts"):
            runs.materialise(instance, date(2020, 1, 4), date(2020, 1, 1))


def test_only_markets_for_which_the_source_may_have_more_are_outdated(project: Project, store):
    markets = StateFile(str(project.state)).load().markets
    end = datetime(2024, 2, 8, 7, tzinfo=UTC)
    newest = date(2024, 2, 9)
    assert outdated_markets(store, markets, newest, lambda market: end) == {"BTCUSDT 1h": START}
    assert outdated_markets(store, markets, START - timedelta(days=1), lambda market: end) == {}, "not started"
    assert project.run(START, date(2024, 2, 8), ["market_data"]).success
    assert outdated_markets(store, markets, newest, lambda market: end) == {}
    later = end + timedelta(hours=1)
    assert outdated_markets(store, markets, newest, lambda market: later) == {"BTCUSDT 1h": date(2024, 2, 8)}
