"""The ledger against a second one written from the definitions (reference_ledger.py), and against itself: any
split of the days gives the same bits, and the books balance to the last digit."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference_ledger import EIGHT, Candle, Deal, reference

from algobot_assets.compute.carry import Days
from algobot_assets.compute.ledger.run import UNFILLED_REASONS, LedgerRun, run_ledger
from algobot_assets.compute.ledger.state import read_state
from algobot_assets.compute.ledger.terms import CostTerms, LedgerError, RiskTerms, RuleTerms, StrategyTerms, Terms

DATA = Path(os.environ.get("ALGOBOT_DATA", Path(__file__).parents[2] / "shared" / "data")) / "klines"
real = pytest.mark.skipif(not DATA.is_dir(), reason="no real candles: set ALGOBOT_DATA")
PRICE = pl.Decimal(20, 8)
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
FIGURES = (
    "total_return",
    "annual_return",
    "max_drawdown",
    "sharpe_ratio",
    "win_rate",
    "avg_profit_pct",
    "risk_reward_ratio",
    "profit_factor",
)


def terms_of(deal: Deal) -> Terms:
    return Terms(
        StrategyTerms(deal.initial, deal.risk, deal.start, deal.end, deal.shorting, "1m" if deal.path else None),
        RiskTerms(Decimal(1), deal.max_lots, deal.stop_pct, deal.target_pct),
        RuleTerms(None if deal.tick == EIGHT else deal.tick, deal.step, deal.least or None),
        CostTerms(deal.fee, deal.bps),
    )


def frame(candles: list[Candle]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "timestamp": pl.Series([c.start * 1000 for c in candles], dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            **{
                name: pl.Series([getattr(c, name) for c in candles], dtype=PRICE)
                for name in ("open", "high", "low", "close")
            },
            "day": pl.Series([c.day for c in candles], dtype=pl.Date),
            "end": pl.Series([c.end for c in candles], dtype=pl.Int64),
            "signal": pl.Series([c.signal for c in candles], dtype=pl.Int8),
        }
    )


def minute_frame(minutes: dict[int, tuple]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "timestamp": pl.Series([m * 1000 for m in minutes], dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            **{
                name: pl.Series([m[i] for m in minutes.values()], dtype=PRICE)
                for i, name in enumerate(("open", "high", "low"))
            },
        }
    )


def lead(candles: pl.DataFrame, days: list[date], terms: Terms, state=None, **more) -> LedgerRun:
    part = candles.filter(pl.col("day").is_in(days))
    return run_ledger(part, part["signal"], Days(days, part["day"]), part["end"], terms, state, **more)


def all_days(candles: pl.DataFrame) -> list[date]:
    first, last = candles["day"].min(), candles["day"].max()
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]


def check_against(run: LedgerRun, expected: tuple) -> None:
    trades, metrics, results, book = expected
    got = run.trades.with_columns(pl.col("^.*_time$").dt.epoch("ms"))
    assert got.height == len(trades)
    for name in trades[0] if trades else ():
        assert got[name].to_list() == [t[name] for t in trades], name
    for frame_, rows in ((run.metrics, metrics), (run.results, results)):
        times = frame_.with_columns(pl.col("^(entry_time|start_date|end_date)$").dt.epoch("ms"))
        assert times.height == len(rows)
        for name in rows[0] if rows else ():
            values, wanted = times[name].to_list(), [r[name] for r in rows]
            if name not in FIGURES:
                assert values == wanted, name
                continue
            for value, want in zip(values, wanted, strict=True):
                if want is None or abs(want) >= 1e12:
                    assert value is None, name
                else:
                    assert value is not None and abs(float(value) - want) <= 6e-9 + 1e-9 * abs(want), name
    balance = book.deal.initial + sum((t["net_profit"] for t in trades), Decimal(0))
    for row in run.results.iter_rows(named=True):
        done = run.trades.filter(pl.col("day") <= row["day"])["net_profit"].to_list()
        assert row["final_capital"] == book.deal.initial + sum(done, Decimal(0)) + row["open_profit"]
    for row in run.unfilled.iter_rows(named=True):
        counted = {reason: book.unfilled[row["day"], reason] for reason in UNFILLED_REASONS}
        assert row == {"day": row["day"], **counted}
    if run.states:
        counts = run.unfilled.select("below_min_notional", "rounded_to_zero", "no_capital").sum().row(0)
        assert (run.unfilled["day"].to_list(), sum(counts)) == (list(run.states), book.skipped)
        account = read_state(list(run.states.values())[-1])
        assert (account.cash, account.skipped_entries, len(account.lots)) == (
            book.cash,
            book.skipped,
            len(book.lots),
        )
        assert account.cash == balance - sum((x.notional + x.fee + x.slip for x in book.lots), Decimal(0))


def same(a: LedgerRun, parts: list[LedgerRun]) -> None:
    for name in ("trades", "metrics", "results", "unfilled"):
        whole = pl.concat([getattr(p, name) for p in parts])
        assert getattr(a, name).equals(whole, null_equal=True), name
    states = {day: state for p in parts for day, state in p.states.items()}
    assert list(states) == list(a.states)
    for day, state in a.states.items():
        assert state.tobytes() == states[day].tobytes(), day


def in_parts(candles: pl.DataFrame, days: list[date], terms: Terms, cuts: list[int], **more) -> list[LedgerRun]:
    parts, state, edges = [], None, sorted({0, len(days), *(c for c in cuts if c < len(days))})
    for a, b in pairwise(edges):
        parts.append(lead(candles, days[a:b], terms, state, **more))
        state = list(parts[-1].states.values())[-1] if parts[-1].states else None
    return parts


def market(
    rng: random.Random,
    count: int,
    step_ms: int,
    price: float,
    places: int,
    wild: float,
    signals: float,
    gaps: float,
) -> tuple[list[Candle], dict[int, tuple]]:
    """Random candles with gaps, jumps and repeated signals, and the minutes they are made of (some lost)."""
    grid = Decimal(1).scaleb(-places)
    candles, minutes, last = [], {}, price
    start = 1_704_067_200_000 + rng.randrange(0, 3) * step_ms
    for _ in range(count):
        start += step_ms
        if rng.random() < gaps:
            start += step_ms * rng.choice((0, 1, 3, 30))
        last *= 1 + abs(rng.gauss(0, wild)) * rng.choice((-0.5, 0, 0, 0.5))
        pieces = []
        for _ in range(max(1, min(step_ms // MINUTE, 4))):
            path = [last]
            for _ in range(3):
                path.append(min(max(path[-1] * (1 + rng.gauss(0, wild)), float(grid) * 2), 1e6))
            pieces.append([max(Decimal(str(x)).quantize(grid), grid) for x in path])
            last = path[-1]
        every = [x for p in pieces for x in p]
        day = datetime.fromtimestamp((start + step_ms - 1) / 1000, UTC).date()
        signal = rng.choice((1, -1)) if rng.random() < signals else 0
        candles.append(Candle(start, start + step_ms, day, every[0], max(every), min(every), every[-1], signal))
        if step_ms <= 4 * MINUTE:
            for i, piece in enumerate(pieces):
                if rng.random() > 0.05:
                    minutes[start + i * MINUTE] = (piece[0], max(piece), min(piece))
    return candles, minutes


deals = st.builds(
    Deal,
    initial=st.sampled_from([Decimal(1000), Decimal("12345.67890123"), Decimal("0.05")]),
    risk=st.sampled_from([Decimal("0.01"), Decimal("0.05"), Decimal("0.3"), Decimal(1)]),
    shorting=st.booleans(),
    stop_pct=st.sampled_from([Decimal(x) for x in ("1", "2", "3.33333333", "10", "60", "150")]),
    target_pct=st.sampled_from([Decimal(x) for x in ("0", "0.7", "4", "12.5", "100")]),
    max_lots=st.integers(1, 4),
    tick=st.sampled_from([EIGHT, Decimal("0.01"), Decimal("0.0005")]),
    step=st.sampled_from([None, EIGHT, Decimal("0.001"), Decimal(1), Decimal(5)]),
    least=st.sampled_from([Decimal(0), Decimal(10)]),
    fee=st.sampled_from([Decimal(0), Decimal("0.001"), Decimal("0.0123")]),
    bps=st.sampled_from([Decimal(0), Decimal(5), Decimal("7.5")]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    deals,
    st.integers(0, 2**32),
    st.sampled_from([3 * MINUTE, HOUR, 8 * HOUR, DAY, 7 * DAY]),
    st.sampled_from([(0.00000123, 8), (0.5, 4), (100.0, 2), (30000.0, 2), (61234.12345678, 8)]),
    st.sampled_from([0.002, 0.02, 0.2]),
    st.sampled_from([0.02, 0.2, 0.9]),
    st.booleans(),
    st.booleans(),
)
def test_random_candles_give_the_trades_of_the_reference(
    deal: Deal, seed: int, step_ms: int, price: tuple, wild: float, signals: float, path: bool, ends: bool
) -> None:
    """Trade by trade, figure by figure, and in parts, on candles with gaps, jumps and pending orders."""
    rng = random.Random(seed)
    candles, minutes = market(rng, rng.choice((5, 60, 150)), step_ms, *price, wild, signals, 0.05)
    days = all_days(frame(candles))
    start = days[rng.randrange(0, min(3, len(days)))]
    deal = replace(
        deal,
        path=path and step_ms == 3 * MINUTE,
        start=start,
        end=start + timedelta(days=rng.randrange(0, len(days) + 1)) if ends else None,
    )
    more = {"minutes": minute_frame(minutes)} if deal.path else {}
    as_of = candles[-1].end
    table, terms = frame(candles), terms_of(deal)
    expected = reference(candles, days, deal, minutes, as_of)
    if expected[3].largest >= 90_000_000:
        with pytest.raises(LedgerError, match="not exact"):
            lead(table, days, terms, as_of_ms=as_of, **more)
        return
    run = lead(table, days, terms, as_of_ms=as_of, **more)
    check_against(run, expected)
    cuts = [rng.randrange(0, len(days) + 1) for _ in range(3)]
    parts = in_parts(table, days[:-1], terms, cuts, **more)
    state = list(parts[-1].states.values())[-1] if parts and parts[-1].states else None
    same(run, [*parts, lead(table, days[-1:], terms, state, as_of_ms=as_of, **more)])


def real_candles(name: str, interval_ms: int, rows: int | None = None) -> pl.DataFrame:
    """Real candles with the signals of an EMA cross in plain code."""
    raw = pl.read_parquet(DATA / name)
    raw = raw.head(rows) if rows else raw
    close = [float(x) for x in raw["close"]]
    signals, fast, slow, above = [], close[0], close[0], None
    for x in close:
        fast, slow = fast + (x - fast) * 0.2, slow + (x - slow) / 11
        now = fast > slow
        signals.append(0 if above is None or now == above else 1 if now else -1)
        above = now
    time = pl.col("open_time")
    return raw.select(
        (time * 1000).cast(pl.Datetime("us", "UTC")).alias("timestamp"),
        *(pl.col(x).cast(PRICE) for x in ("open", "high", "low", "close")),
        ((time + interval_ms - 1) // DAY).cast(pl.Int32).cast(pl.Date).alias("day"),
        (time + interval_ms).alias("end"),
        pl.Series("signal", signals, dtype=pl.Int8),
    )


REAL = {
    "BTCUSDT 1h": (
        "spot/BTCUSDT-1h-2022_2026-04.parquet",
        HOUR,
        4000,
        Deal(
            Decimal(10000),
            Decimal("0.02"),
            tick=Decimal("0.01"),
            step=Decimal("0.00001"),
            bps=Decimal(5),
            stop_pct=Decimal(2),
            target_pct=Decimal(4),
            least=Decimal(5),
        ),
    ),
    "SHIBUSDT 1h": (
        "spot-ohlcv6/SHIBUSDT-1h-2021-05_2023-12.parquet",
        HOUR,
        3000,
        Deal(Decimal(10000), Decimal("0.02"), stop_pct=Decimal(5), target_pct=Decimal(0)),
    ),
    "BTCUSDT 1d": (
        "spot/BTCUSDT-1d-all_2026-04.parquet",
        DAY,
        700,
        Deal(Decimal(10000), Decimal("0.05"), stop_pct=Decimal(8), target_pct=Decimal(30)),
    ),
    "BTCUSDT 1w": (
        "spot/BTCUSDT-1w-2017_2026-04.parquet",
        7 * DAY,
        150,
        Deal(Decimal(10000), Decimal("0.1"), stop_pct=Decimal(20), target_pct=Decimal(90)),
    ),
}


@real
@pytest.mark.parametrize("name", REAL)
def test_real_candles_give_the_trades_of_the_reference(name: str) -> None:
    """The same trades and figures as the plain ledger on published candles, their gaps included."""
    file, interval_ms, rows, deal = REAL[name]
    table = real_candles(file, interval_ms, rows)
    days = all_days(table)
    deal = replace(deal, start=days[10])
    candles = [
        Candle(
            int(r["timestamp"].timestamp() * 1000),
            r["end"],
            r["day"],
            r["open"],
            r["high"],
            r["low"],
            r["close"],
            r["signal"],
        )
        for r in table.iter_rows(named=True)
    ]
    run = lead(table, days, terms_of(deal))
    assert run.trades.height >= 5
    check_against(run, reference(candles, days, deal))


@real
@pytest.mark.parametrize("name", REAL)
def test_any_split_gives_the_same_bits(name: str) -> None:
    """Day by day, in months, in random pieces: trades, metrics, results and states are those of one run."""
    file, interval_ms, _, deal = REAL[name]
    table = real_candles(file, interval_ms)
    days = all_days(table)
    terms = terms_of(replace(deal, start=days[5], end=days[-20]))
    whole = lead(table, days, terms)
    assert whole.trades.height > 0 and np.isfinite([s[3] for s in whole.states.values()]).all()
    rng = random.Random(name)
    for cuts in (list(range(0, len(days), 30)), [rng.randrange(len(days)) for _ in range(20)]):
        same(whole, in_parts(table, days, terms, cuts))
    same(lead(table, days[:150], terms), in_parts(table, days[:150], terms, list(range(150))))


@real
def test_stored_minutes_decide_order_and_time() -> None:
    """15m candles with their published minutes, the outage of 2023-03-24 among them."""
    table = real_candles("spot/BTCUSDT-15m-2023.parquet", 15 * MINUTE, 12_000).tail(5000)
    raw = pl.read_parquet(DATA / "spot/BTCUSDT-1m-2023.parquet").filter(
        pl.col("open_time").is_between(table["end"][0] - 15 * MINUTE, table["end"][-1])
    )
    minutes = dict(
        zip(raw["open_time"], raw.select(pl.col("open", "high", "low").cast(PRICE)).iter_rows(), strict=True)
    )
    days = all_days(table)
    deal = Deal(
        Decimal(10000),
        Decimal("0.02"),
        days[0],
        tick=Decimal("0.01"),
        stop_pct=Decimal("0.4"),
        target_pct=Decimal("0.4"),
        path=True,
    )
    candles = [
        Candle(
            int(r["timestamp"].timestamp() * 1000),
            r["end"],
            r["day"],
            r["open"],
            r["high"],
            r["low"],
            r["close"],
            r["signal"],
        )
        for r in table.iter_rows(named=True)
    ]
    run = lead(table, days, terms_of(deal), minutes=minute_frame(minutes))
    check_against(run, reference(candles, days, deal, minutes))
    plain = lead(table, days, terms_of(replace(deal, path=False)))
    assert plain.trades["ambiguous"].sum() > run.trades["ambiguous"].sum()
