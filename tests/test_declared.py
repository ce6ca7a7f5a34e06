"""The declared state: reading the file, every refusal with its line, versions by day, differences."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from algobot_assets.compute.strategies import get_strategy, strategy_types
from algobot_assets.declared import differences as diff
from algobot_assets.declared import parameters, versions
from algobot_assets.declared.configurations import CONFIGURATIONS, Configuration
from algobot_assets.declared.differences import Kind, Stored
from algobot_assets.declared.model import DeclaredState, Market, RiskParameters, Strategy
from algobot_assets.declared.reading import load, loads
from algobot_assets.declared.yaml_file import MAX_CHARACTERS
from algobot_assets.errors import SettingsError, WindowError
from algobot_assets.schema.frames import schema_of

ROOT = Path(__file__).parents[1]
EVER = (date.min, date.max)
START = date(2024, 1, 1)


def crossing(given):
    """Parameters of a type with two windows, completed and checked."""
    full = {"fast": 9, "slow": 21, **given}
    if unknown := full.keys() - {"fast", "slow"}:
        raise ValueError(f"unknown parameter {min(unknown)}; known are fast, slow")
    if not full["fast"] < full["slow"]:
        raise ValueError("fast must be below slow")
    return full


#: Small, so that tests can refuse combinations and take any parameter.
TYPES = {"ema_cross": crossing, "macd": dict, "btc": dict}
REGISTERED = {kind: get_strategy(kind).resolve for kind in strategy_types()}

GOOD = """\
markets:
  - {symbol: BTCUSDT, intervals: [1h, 1m], start: 2024-01-01}
  - symbol: ETHUSDT.UM
    interval: 4h
    start: 2023-06-01
strategies:
  trend:
    type: ema_cross
    market: BTCUSDT 1h
    initial_balance: 10_000
    risk_per_trade: 0.02
    parameters: {fast: 5}
    shorting: true
    stop_path: 1m
    effective_to: 2025-01-01
    risk:
      max_risk_per_trade: 0.02
      max_open_trades: 1
      stop_loss_percentage: 2
      take_profit_percentage: 0
  rules:
    type: btc
    market: ETHUSDT.UM 4h
    initial_balance: 1e3
    risk_per_trade: 1
    risk:
      - {max_risk_per_trade: 0.1, max_open_trades: 3, stop_loss_percentage: 2.5, take_profit_percentage: 7}
      - effective_from: 2024-03-01
        max_risk_per_trade: 0.05
        max_open_trades: 3
        stop_loss_percentage: 2.5
        take_profit_percentage: 7
    versions:
      - parameters: {level: 1.50, deep: {names: [a, "b"], on: true}}
      - effective_from: 2024-02-01
        parameters: {level: 2}
      - effective_from: 2024-06-01
        risk_per_trade: 0.5
configurations:
  indicators.ema_window: 20
  indicators.vwap_mode: rolling
  ledger.commission_rate:
    - value: 0.001
    - {value: 0.00075, effective_from: 2024-05-01}
"""


def read(text):
    return loads(text, TYPES)


def refusals(text):
    with pytest.raises(SettingsError) as caught:
        read(text)
    return str(caught.value).split("\n")


def refusal(text, line, *words):
    """The one refusal of ``text``, which must name the file and ``line`` and contain ``words``."""
    said = refusals(text)
    assert len(said) == 1, said
    assert said[0].startswith(f"algobot.yaml, line {line}: "), said[0]
    for word in words:
        assert word in said[0]


def changed(old, new, count=1):
    assert GOOD.count(old) >= 1, old
    return GOOD.replace(old, new, count)


def line_of(text, part):
    return text[: text.index(part)].count("\n") + 1


def stored_as(state):
    """What is stored after ``state`` was applied, with JSON as a JSONB column gives it back."""
    strategies = versions.strategies(state, *EVER).with_row_index("id", 7).with_columns(pl.col("id").cast(pl.Int64))
    jsonb = [
        json.dumps(dict(sorted(json.loads(text).items(), key=lambda item: (len(item[0]), item[0]))))
        for text in strategies["parameters"]
    ]
    strategies = strategies.with_columns(pl.Series("parameters", jsonb))
    risk = versions.risk_parameters(state, strategies, *EVER)
    return Stored(versions.configurations(state, *EVER), strategies, risk)


# --- reading ---------------------------------------------------------------------------------------------


def test_a_good_file_is_read_exactly():
    state = read(GOOD)
    assert [market.name for market in state.markets] == ["BTCUSDT 1m", "BTCUSDT 1h", "ETHUSDT.UM 4h"]
    trend = state.strategies[-1]
    assert trend == Strategy(
        name="trend",
        type="ema_cross",
        symbol="BTCUSDT",
        interval="1h",
        initial_balance=Decimal(10000),
        risk_per_trade=Decimal("0.02"),
        parameters={"fast": 5, "slow": 21},
        shorting=True,
        stop_path="1m",
        effective_from=START,
        effective_to=date(2025, 1, 1),
        risk=(RiskParameters(Decimal("0.02"), 1, Decimal(2), Decimal(0), START),),
    )
    rules = state.strategies[:3]
    assert [item.effective_from for item in rules] == [date(2023, 6, 1), date(2024, 2, 1), date(2024, 6, 1)]
    assert rules[0].parameters == {"level": 1.5, "deep": {"names": ["a", "b"], "on": True}}
    assert [item.risk_per_trade for item in rules] == [1, 1, Decimal("0.5")]
    assert [(item.name, item.text, item.effective_from) for item in state.configurations] == [
        ("indicators.ema_window", "20", date(2023, 6, 1)),
        ("indicators.vwap_mode", "rolling", date(2023, 6, 1)),
        ("ledger.commission_rate", "0.001", date(2023, 6, 1)),
        ("ledger.commission_rate", "0.00075", date(2024, 5, 1)),
    ]


def test_risk_beside_versions_keeps_its_dates_and_starts_each_version():
    first, second, third = read(GOOD).strategies[:3]

    def days(strategy):
        return [(item.effective_from, item.max_risk_per_trade) for item in strategy.risk]

    assert days(first) == [(date(2023, 6, 1), Decimal("0.1"))]
    assert days(second) == [(date(2024, 2, 1), Decimal("0.1")), (date(2024, 3, 1), Decimal("0.05"))]
    assert days(third) == [(date(2024, 6, 1), Decimal("0.05"))]


def test_risk_beside_versions_on_the_day_of_a_version_and_in_a_pause():
    def risk_of(text):
        return [
            [(item.effective_from, item.max_risk_per_trade) for item in strategy.risk]
            for strategy in read(text).strategies[:3]
        ]

    new = Decimal("0.05")
    same_day = changed("effective_from: 2024-03-01", "effective_from: 2024-02-01")
    assert risk_of(same_day)[1:] == [[(date(2024, 2, 1), new)], [(date(2024, 6, 1), new)]]
    paused = changed(
        "    - effective_from: 2024-02-01",
        "    - effective_to: 2024-02-10\n        effective_from: 2024-02-01",
    )
    assert risk_of(paused)[1:] == [[(date(2024, 2, 1), Decimal("0.1"))], [(date(2024, 6, 1), new)]]
    up_to_the_next = paused.replace("2024-02-10", "2024-06-01")
    assert risk_of(up_to_the_next) == risk_of(GOOD)


def test_risk_parameters_begin_with_their_strategy():
    later = read(changed("    shorting: true", "    effective_from: 2024-02-01")).strategies[-1]
    assert (later.effective_from, later.risk[0].effective_from) == (date(2024, 2, 1), date(2024, 2, 1))


def test_the_model_file_of_the_project_is_good():
    state = load(ROOT / "algobot.yaml", REGISTERED)
    assert all(item.parameters == REGISTERED[item.type](item.parameters) for item in state.strategies)
    assert [market.name for market in state.markets] == ["BTCUSDT 1h", "ETHUSDT 1h"]
    assert {(item.type, item.market) for item in state.strategies} == {
        ("ema_cross", "BTCUSDT 1h"),
        ("macd", "BTCUSDT 1h"),
        ("btc", "BTCUSDT 1h"),
        ("ema_cross", "ETHUSDT 1h"),
    }
    assert {item.effective_from for item in (*state.strategies, *state.configurations)} == {START}
    assert {item.name: item.value for item in state.configurations} == {
        name: setting.default for name, setting in CONFIGURATIONS.items()
    }


def test_the_examples_in_comments_of_the_model_file_are_good_too():
    text = (ROOT / "algobot.yaml").read_text()
    for commented in (
        "      # - effective_from: 2024-07-01\n      #   max_risk_per_trade: 0.01\n"
        "      #   max_open_trades: 1\n      #   stop_loss_percentage: 2.5\n"
        "      #   take_profit_percentage: 0\n",
        "      # - effective_from: 2024-07-01\n      #   parameters: {fast: 12, slow: 26}\n",
        "    # shorting: true",
        "    # effective_from: 2024-01-01",
        "    # effective_to: 2025-01-01",
    ):
        assert commented in text
        text = text.replace(commented, commented.replace("# ", "", commented.count("\n") or 1))
    state = read(text)
    assert len(state.strategies) == 5
    assert sum(len(item.risk) for item in state.strategies) == 6
    assert any(item.shorting and item.effective_to == date(2025, 1, 1) for item in state.strategies)


def test_text_means_what_is_written_not_what_yaml_1_1_guesses():
    text = changed("{level: 2}", "{a: no, b: 010, c: 1:30, d: '5', e: 2024-01-01, f: -0.5, g: 1e3, h: 1_000}")
    held = next(item.parameters for item in read(text).strategies if "a" in item.parameters)
    assert held == {
        "a": "no",
        "b": "010",
        "c": "1:30",
        "d": "5",
        "e": "2024-01-01",
        "f": -0.5,
        "g": 1000,
        "h": 1000,
    }
    assert type(held["g"]) is int


@pytest.mark.parametrize("mark", ["\n", "\r\n"])
def test_line_ends_and_byte_order_marks_are_accepted(tmp_path, mark):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", mark).encode())
    assert load(path, TYPES) == read(GOOD)
    path.write_bytes(changed("start: 2023-06-01", "start: never").replace("\n", mark).encode())
    with pytest.raises(SettingsError, match=r"mine\.yaml, line 5: start is `never`; write a date as YYYY-MM-DD"):
        load(path, TYPES)


def test_unreadable_declared_files_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="Put the file there"):
        load(tmp_path / "absent.yaml", TYPES)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"markets:\n  # M\xe4rkte\n")
    with pytest.raises(SettingsError, match="line 2: not UTF-8"):
        load(latin, TYPES)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~\n"])
def test_an_empty_declared_file_is_refused(text):
    refusal(text, 1, "empty", "declare at least one market")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("- a\n", 1, ["the file is a list"]),
        ("strategies: {}\n", 1, ["no `markets`"]),
        ("markets: []\n", 1, ["must be a list"]),
        ("markets:\n\n\tx: 1\n", 3, ["indent with spaces"]),
        ("markets: [1\nx: 2\n", 2, ["not valid YAML", "check indentation"]),
        ("markets:\n  - {symbol: 'A\n", 3, ["not valid YAML"]),
        ("a: 1\n---\nb: 2\n", 2, ["second document"]),
        ("\n\nx: \x00", 3, ["U+0000"]),
        ('\nx: "\\0"\n', 2, ["U+0000"]),
        ('\nx: "\\ud800"\n', 2, ["U+D800"]),
        ('\nx: "\\UFFFFFFFF"\n', 2, ["out of range"]),
        ("a: &x 1\n", 1, ["anchors"]),
        ("a: 1\nb: *x\n", 2, ["aliases"]),
        ("a: !!python/object:os.system x\n", 1, ["tags"]),
        ("a: !!binary aGk=\n", 1, ["tags"]),
        ("a: 1\nb:\n  - 2\na: 3\n", 4, ["`a` was already given in line 1", "keep one"]),
        ("? [a, b]\n: 1\n", 1, ["a key must be text"]),
        ("~: 1\n", 1, ["a key must be text"]),
        ('x: 1\n"a\\nb": 1\n', 2, ["a key must be text of one line"]),
        ("<<: {a: 1}\n", 1, ["unknown key `<<`"]),
        ("[" * 50, 1, ["nested deeper"]),
        ("a: " + "x" * MAX_CHARACTERS, 1, ["longer than"]),
        ("marktes: []\n", 1, ["unknown key `marktes`", "did you mean `markets`?"]),
    ],
)
def test_invalid_yaml_is_refused_with_its_line(text, line, words):
    refusal(text, line, *words)


def test_an_alias_bomb_is_refused_at_its_first_anchor():
    bomb = "a: &a [x, x]\n" + "".join(
        f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, after in zip("abcdefgh", "bcdefghi", strict=True)
    )
    refusal(bomb, 1, "anchors (&) and aliases (*) are not supported")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        # unknown keys, with suggestions
        ("strategies:\n", "strategys:\n", ["unknown key `strategys`", "did you mean `strategies`?"]),
        ("interval: 4h", "intervall: 4h", ["a market has the unknown key `intervall`", "`interval`?"]),
        ("risk_per_trade: 0.02", "riskPerTrade: 0.02", ["strategy trend", "did you mean `risk_per_trade`?"]),
        (
            "max_open_trades: 1",
            "max_trades: 1",
            ["risk of strategy trend", "did you mean `max_open_trades`?"],
        ),
        (
            "risk_per_trade: 0.5",
            "zzz: 0.5",
            ["a version of strategy rules", "unknown key `zzz`", "known are type"],
        ),
        ("indicators.ema_window", "indicators.ema_windw", ["did you mean `indicators.ema_window`?"]),
        ("{value: 0.00075", "{valu: 0.00075", ["did you mean `value`?"]),
        ("type: ema_cross", "type: emacross", ["`emacross` is not a strategy type; did you mean `ema_cross`?"]),
        (
            "market: BTCUSDT 1h",
            "market: BTCUSDT 1d",
            ["trades `BTCUSDT 1d`, not one of `markets`", "did you mean `BTCUSDT 1"],
        ),
        ("market: BTCUSDT 1h", "market: [BTCUSDT]", ["market is a list; write a text"]),
        ("{fast: 5}", "{fats: 5}", ["unknown parameter fats"]),
        # markets
        ("symbol: ETHUSDT.UM", "symbol: eth/usdt", ["not a symbol", "BTCUSDT.UM"]),
        ("symbol: ETHUSDT.UM", "symbol: ABCDEFGHIJKLMNOPQRSTU.UM", ["at most 20 characters"]),
        ("interval: 4h", "interval: 5h", ["not an interval", "1s, 1m, 3m"]),
        ("intervals: [1h, 1m]", "intervals: [1h, 1H]", ["'1H' is not an interval"]),
        ("intervals: [1h, 1m]", "intervals: []", ["must be a list"]),
        ("intervals: [1h, 1m]", "intervals: [1h], interval: 1m", ["keep one of them"]),
        ("intervals: [1h, 1m]", "intervals: [1h, 1h]", ["BTCUSDT 1h is declared twice"]),
        ("start: 2023-06-01", "start: 2023-02-30", ["not a day of the calendar"]),
        ("start: 2023-06-01", "start: 2023-06-01 00:00:00", ["write a date as YYYY-MM-DD"]),
        ("start: 2023-06-01", "start: 20230601", ["write a date as YYYY-MM-DD"]),
        ("start: 2023-06-01", "start: 2009-01-03", ["between 2017-07-01 and 2100-01-01"]),
        ("start: 2023-06-01", "start: 2203-06-01", ["between 2017-07-01 and 2100-01-01"]),
        # numbers and other types
        ("initial_balance: 10_000", "initial_balance: 0", ["above 0 and below 90000000"]),
        ("initial_balance: 10_000", "initial_balance: 90000000", ["above 0 and below 90000000"]),
        ("initial_balance: 10_000", "initial_balance: .inf", ["initial_balance is `.inf`; write a number"]),
        ("initial_balance: 10_000", "initial_balance: '10'", ["remove the quotes"]),
        ("initial_balance: 10_000", "initial_balance: 10,000", ["write a number"]),
        ("initial_balance: 10_000", "initial_balance: 1_0", ["write a number"]),
        ("initial_balance: 10_000", "initial_balance: 010", ["write a number"]),
        ("initial_balance: 10_000", "initial_balance: ", ["initial_balance is nothing"]),
        ("initial_balance: 10_000", "initial_balance: {a: 1}", ["initial_balance is a mapping"]),
        ("initial_balance: 10_000", "initial_balance: 0.000000001", ["at most eight decimals"]),
        ("initial_balance: 10_000", "initial_balance: 1e999", ["below 90000000"]),
        ("initial_balance: 10_000", "initial_balance: " + "9" * 5000, ["write a number"]),
        (
            "risk_per_trade: 0.02",
            "risk_per_trade: 2",
            ["write a fraction above 0 and at most 1 (0.02 means 2 %)"],
        ),
        ("risk_per_trade: 0.02", "risk_per_trade: 2%", ["without the percent sign"]),
        ("risk_per_trade: 0.02", "risk_per_trade: 0", ["above 0"]),
        ("max_risk_per_trade: 0.02", "max_risk_per_trade: 1.1", ["at most 1"]),
        ("max_open_trades: 1", "max_open_trades: 0", ["write a whole number from 1 to 1000"]),
        ("max_open_trades: 1", "max_open_trades: 1001", ["write a whole number from 1 to 1000"]),
        ("max_open_trades: 1", "max_open_trades: 1.5", ["write a whole number"]),
        ("stop_loss_percentage: 2\n", "stop_loss_percentage: 0\n", ["above 0 and below 100"]),
        ("stop_loss_percentage: 2\n", "stop_loss_percentage: 100\n", ["above 0 and below 100"]),
        ("take_profit_percentage: 0\n", "take_profit_percentage: -1\n", ["from 0 (no target)"]),
        ("shorting: true", "shorting: yes", ["shorting is `yes`; write true or false"]),
        ("stop_path: 1m", "stop_path: 5m", ["write 1m or remove it"]),
        ("parameters: {fast: 5}", "parameters: [5]", ["parameters must be a mapping"]),
        ("parameters: {fast: 5}", "parameters: {fast: }", ["parameters.fast has no value"]),
        (
            "parameters: {fast: 5}",
            "parameters: {fast: many}",
            ["parameters of strategy trend: '<' not supported"],
        ),
        ("parameters: {fast: 5}", "parameters: {fast: 30}", ["fast must be below slow"]),
        (
            "parameters: {fast: 5}",
            "parameters: {fast: 1.0000000000000001}",
            ["at most 15 significant digits"],
        ),
        ("parameters: {fast: 5}", "parameters: {fast: 1e30}", ["cannot be kept exactly"]),
        ("parameters: {fast: 5}", "parameters: {shorting: true}", ["move it one level up"]),
        ("indicators.ema_window: 20", "indicators.ema_window: 1", ["whole number from 2 to 10000"]),
        ("indicators.ema_window: 20", "indicators.ema_window: 2.5", ["write a whole number"]),
        ("indicators.vwap_mode: rolling", "indicators.vwap_mode: daily", ["session, rolling, auto"]),
        ("    - value: 0.001", "    - value: 0.5", ["from 0 to 0.1"]),
        # rules between entries
        (
            "    effective_to: 2025-01-01",
            "    effective_to: 2024-01-01",
            ["must be later than effective_from"],
        ),
        (
            "    effective_to: 2025-01-01",
            "    effective_from: 2023-12-31",
            ["before its market BTCUSDT 1h (2024-01-01)"],
        ),
        ("  trend:\n", "  2nd trend:\n", ["'2nd trend' is not a name for a strategy"]),
        ("effective_from: 2024-03-01", "effective_to: 2024-03-01", ["unknown key `effective_to`"]),
        ("effective_from: 2024-06-01", "effective_from: 2024-02-01", ["does not come after 2024-02-01"]),
        ("effective_from: 2024-05-01", "effective_from: 2020-05-01", ["does not come after 2023-06-01"]),
    ],
)
def test_refusals_name_the_line(old, new, words):
    text = changed(old, new)
    refusal(text, line_of(GOOD, old), *words)


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        (
            "    initial_balance: 10_000\n",
            "",
            "    type: ema_cross",
            ["strategy trend has no `initial_balance`; add it"],
        ),
        ("    interval: 4h\n", "", "symbol: ETHUSDT.UM", ["a market has no `interval`"]),
        ("    start: 2023-06-01\n", "", "symbol: ETHUSDT.UM", ["a market has no `start`"]),
        (
            "      stop_loss_percentage: 2\n",
            "",
            "      max_risk_per_trade: 0.02",
            ["no `stop_loss_percentage`"],
        ),
        (", effective_from: 2024-05-01", "", "{value: 0.00075", ["after the first has no effective_from"]),
        ("intervals: [1h, 1m]", "intervals: [1h]", "stop_path: 1m", ["needs the market BTCUSDT 1m"]),
        (
            "    market: BTCUSDT 1h",
            "    market: BTCUSDT 1m",
            "stop_path: 1m",
            ["adds nothing to candles of 1m"],
        ),
        (
            "    versions:\n",
            "    effective_from: 2024-01-01\n    versions:\n",
            "effective_from: 2024-01-01\n",
            ["move effective_from into the version"],
        ),
        (
            "      max_risk_per_trade: 0.02",
            "      effective_from: 2024-02-01\n      max_risk_per_trade: 0.02",
            "effective_from: 2024-02-01\n      max",
            ["the strategy begins on 2024-01-01"],
        ),
        (
            "      - parameters: {level: 1.50",
            "      - effective_to: 2024-02-02\n        parameters: {level: 1.50",
            "effective_to: 2024-02-02",
            ["later than the next version (2024-02-01)"],
        ),
        (
            "        risk_per_trade: 0.5",
            "        effective_to: 2024-09-01\n    effective_to: 2024-10-01",
            "effective_to: 2024-09-01",
            ["keep one"],
        ),
        (
            "    versions:\n",
            "    effective_to: 2024-02-20\n    versions:\n",
            "effective_to: 2024-02-20",
            ["later than effective_from (2024-06-01)"],
        ),
    ],
)
def test_missing_and_contradictory_entries_are_refused(old, new, at, words):
    text = changed(old, new)
    refusal(text, line_of(text, at), *words)


def test_all_problems_are_reported_at_once_in_order_of_lines():
    text = changed("type: ema_cross", "type: x").replace("type: btc", "type: y").replace("value: 0.001", "value: 9")
    said = refusals(text)
    assert [part.split(":")[0] for part in said] == [
        f"algobot.yaml, line {line_of(GOOD, part)}" for part in ("type: ema_cross", "type: btc", "    - value")
    ]
    many = "markets: [{symbol: BTCUSDT, interval: 1h, start: 2024-01-01}]\nconfigurations:\n"
    many += "".join(f"  unknown{number}: 1\n" for number in range(30))
    said = refusals(many)
    assert len(said) == 21
    assert said[-1] == "and 10 more"


def test_the_refusal_of_a_registered_strategy_names_the_line_of_the_parameter():
    lines = "    parameters:\n      fast: 5\n      slow: 2.5\n"
    text = changed("    parameters: {fast: 5}\n", lines)
    with pytest.raises(SettingsError) as caught:
        loads(text.replace("  rules:", "  unused:").replace("type: btc", "type: macd"), REGISTERED)
    first, second = str(caught.value).split("\n")
    assert first.startswith(f"algobot.yaml, line {line_of(text, '      slow: 2.5')}: parameters of strategy trend: ")
    assert second.startswith(f"algobot.yaml, line {line_of(text, '{level: 1.50')}: ")
    assert "'deep'" in second or "'level'" in second


def test_a_state_built_in_code_obeys_the_same_rules():
    state = read(GOOD)
    market, strategy = state.markets[1], state.strategies[-1]
    with pytest.raises(SettingsError, match="not declared"):
        replace(state, markets=(market,))
    with pytest.raises(SettingsError, match="declared twice from 2024-01-01"):
        replace(state, strategies=(strategy, strategy))
    with pytest.raises(SettingsError, match="declared twice from"):
        replace(state, configurations=(Configuration("indicators.ema_window", 9, START),) * 2)
    with pytest.raises(SettingsError, match="must be a Decimal"):
        replace(strategy, initial_balance=0.1)
    with pytest.raises(SettingsError, match="cannot be stored"):
        replace(strategy, parameters={"fast": float("nan")})
    with pytest.raises(SettingsError, match="never apply"):
        late = replace(strategy.risk[0], effective_from=date(2025, 1, 1))
        replace(strategy, risk=(*strategy.risk, late))
    with pytest.raises(SettingsError, match="no market"):
        DeclaredState(())
    with pytest.raises(SettingsError, match="must be a date"):
        Market("BTCUSDT", "1h", "2024-01-01")


# --- fuzz ------------------------------------------------------------------------------------------------

LINES = GOOD.split("\n")
WORDS = st.sampled_from(
    [word for line in LINES for word in line.replace("{", " ").replace("}", " ").replace(",", " ").split()]
    + [
        "versions:",
        "risk:",
        "&a",
        "*a",
        "!!int",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "? ",
        "|",
        ">-",
        '"',
        "'",
        "1e400",
        "~",
    ]
)


def survives(text):
    """Reading ``text`` gives a state or a SettingsError that names a line of it, nothing else."""
    try:
        state = read(text)
    except SettingsError as error:
        for said in str(error).split("\n"):
            if not said.startswith("and "):
                line = int(said.removeprefix("algobot.yaml, line ").split(":")[0])
                assert 1 <= line <= len(text.splitlines()) + 1
        return
    assert diff.differences(state, stored_as(state)) == []


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    survives(text)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), st.text(max_size=6) | WORDS), max_size=3))
def test_any_edit_is_read_or_refused(edits):
    text = GOOD
    for at, length, new in edits:
        text = text[:at] + new + text[at + length :]
    survives(text)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, len(LINES) - 1), max_size=4),
    st.lists(st.tuples(st.integers(0, 45), WORDS), max_size=3),
)
def test_any_loss_of_lines_is_read_or_refused(lost, added):
    lines = [line for number, line in enumerate(LINES) if number not in lost]
    for at, word in added:
        lines.insert(at, " " * (at % 7) + word)
    survives("\n".join(lines))


KEYS = st.sampled_from(
    ["markets", "strategies", "configurations", "symbol", "interval", "intervals", "start", "type", "market",
     "risk", "versions", "parameters", "effective_from", "effective_to", "value", *CONFIGURATIONS]
) | st.text(max_size=4)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=5)
    | st.sampled_from(["BTCUSDT", "1h", "BTCUSDT 1h", "2024-01-01", "macd", "auto"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["markets", "strategies", "configurations"]), VALUES)
def test_any_structure_is_read_or_refused(section, value):
    content = {"markets": [{"symbol": "BTCUSDT", "interval": "1h", "start": START}], section: value}
    survives(yaml.safe_dump(content, sort_keys=False))


# --- parameters ------------------------------------------------------------------------------------------


def test_canonical_json_has_one_text_for_one_meaning():
    texts = [
        '{"b": 50, "a": [1.50, true, null, "x"]}',
        '{"a":[1.5,true,null,"x"],"b":5e1}',
        '{"a":[15e-1,true,null,"x"],"b":50.0}',
    ]
    assert {parameters.canonical(text) for text in texts} == {'{"a":[1.5,true,null,"x"],"b":50}'}
    assert parameters.canonical({"tiny": 1e-7, "sum": 0.1, "zero": -0.0}) == '{"sum":0.1,"tiny":0.0000001,"zero":0}'
    for bad in (0.1 + 0.2, float("inf"), {"a": {1: 2}}, {"a": object()}):
        with pytest.raises(ValueError):
            parameters.canonical(bad)


FIGURES = st.decimals(-(10**9), 10**9, places=5) | st.integers(-(10**14), 10**14)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=5), st.booleans() | FIGURES | st.text(max_size=5), max_size=5),
    st.booleans(),
    st.none() | st.just("1m"),
)
def test_parameters_come_back_from_their_text(held, shorting, stop_path):
    held = {key: value for key, value in held.items() if key not in parameters.RESERVED}
    text = parameters.to_json(held, shorting, stop_path)
    back = parameters.from_json(json.dumps(json.loads(text), indent=1))
    assert (back.parameters, back.shorting, back.stop_path) == (parameters.normal(held), shorting, stop_path)
    assert parameters.to_json(back.parameters, back.shorting, back.stop_path) == text
    numbers = [value for value in held.values() if isinstance(value, Decimal)]
    assert all(float(number) in back.parameters.values() for number in numbers)


# --- versions --------------------------------------------------------------------------------------------


def test_frames_are_those_of_the_tables():
    state = read(GOOD)
    held = stored_as(state)
    for table in diff.TABLES:
        frame = diff.rows_to_hold(table, state, held, *EVER)
        assert dict(frame.schema) == schema_of(table)
        assert diff.rows_to_hold(table, state, held, START, START).schema == frame.schema
    rules = versions.strategies(state, *EVER).filter(strategy_name="rules")
    assert rules["version"].to_list() == [1, 2, 3]
    assert rules["effective_to"].to_list() == [None, None, None]
    assert rules["parameters"][1] == '{"level":2,"shorting":false,"stop_path":null}'
    risk = held.risk_parameters.join(held.strategies, left_on="strategy_id", right_on="id", suffix="_of")
    assert risk.filter(strategy_name="rules").select("version_of", "version").rows() == [
        (1, 1),
        (2, 1),
        (2, 2),
        (3, 1),
    ]


def test_a_partition_holds_what_became_effective_in_it():
    state = read(GOOD)
    held = stored_as(state)
    days = [START + timedelta(days=7 * week) for week in range(-40, 40)]
    for table in diff.TABLES:
        parts = [diff.rows_to_hold(table, state, held, first, end) for first, end in pairwise(days)]
        whole = diff.rows_to_hold(table, state, held, *EVER)
        keys = [whole.columns[0], "effective_from"]
        assert pl.concat(parts).sort(keys).equals(whole.sort(keys))
    day = date(2024, 2, 1)
    assert versions.strategies(state, day, day + timedelta(days=1))["strategy_name"].to_list() == ["rules"]


def test_risk_parameters_wait_for_their_strategy():
    state = read(GOOD)
    with pytest.raises(WindowError, match=r"strategy rules of 2023-06-01 .* Materialise strategies"):
        diff.rows_to_hold("risk_parameters", state, Stored.nothing(), *EVER)
    with pytest.raises(ValueError, match="signals"):
        diff.rows_to_hold("signals", state, Stored.nothing(), *EVER)


def test_effective_is_the_latest_version_that_has_not_ended():
    frame = versions.strategies(read(GOOD), *EVER)

    def in_force(day):
        return versions.effective(frame, day).select("strategy_name", "version").rows()

    assert in_force(date(2023, 5, 31)) == []
    assert in_force(date(2023, 6, 1)) == [("rules", 1)]
    assert in_force(date(2024, 1, 31)) == [("rules", 1), ("trend", 1)]
    assert in_force(date(2024, 2, 1)) == [("rules", 2), ("trend", 1)]
    assert in_force(date(2024, 12, 31)) == [("rules", 3), ("trend", 1)]
    assert in_force(date(2025, 1, 1)) == [("rules", 3)]
    assert versions.effective(frame, START).columns == frame.columns
    assert versions.lifetimes(frame)["until"].to_list() == [
        date(2024, 2, 1),
        date(2024, 6, 1),
        None,
        date(2025, 1, 1),
    ]


def test_periods_split_where_versions_change():
    frame = versions.strategies(read(GOOD), *EVER)
    found = versions.periods(frame, date(2024, 1, 31), date(2025, 1, 3))
    assert [(item.first, item.end, item.rows.height) for item in found] == [
        (date(2024, 1, 31), date(2024, 2, 1), 2),
        (date(2024, 2, 1), date(2024, 6, 1), 2),
        (date(2024, 6, 1), date(2025, 1, 1), 2),
        (date(2025, 1, 1), date(2025, 1, 3), 1),
    ]
    assert versions.periods(frame, START, START) == []
    only = versions.periods(frame.clear(), START, date(2024, 1, 5))
    assert [(item.first, item.end, item.rows.height) for item in only] == [(START, date(2024, 1, 5), 0)]


DAYS = st.integers(0, 40).map(lambda number: START + timedelta(days=number))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), DAYS, st.none() | st.integers(1, 9)), unique_by=lambda item: item[:2]),
    DAYS,
    st.integers(0, 30),
)
def test_periods_agree_with_asking_every_day(drawn, first, length):
    frame = pl.DataFrame(
        [
            {
                "strategy_name": name,
                "effective_from": day,
                "effective_to": None if life is None else day + timedelta(days=life),
            }
            for name, day, life in drawn
        ],
        schema={"strategy_name": pl.String, "effective_from": pl.Date, "effective_to": pl.Date},
    )

    def asked(day):
        latest = {}
        for row in sorted(frame.rows(), key=lambda row: row[1]):
            if row[1] <= day:
                latest[row[0]] = row
        return sorted(row for row in latest.values() if row[2] is None or row[2] > day)

    end = first + timedelta(days=length)
    found = versions.periods(frame, first, end)
    told = [item.rows.rows() for item in found for _ in range((item.end - item.first).days)]
    assert told == [asked(first + timedelta(days=number)) for number in range(length)]
    assert all(before.end == after.first for before, after in pairwise(found))


def test_settings_have_their_defaults_until_declared():
    frame = versions.configurations(read(GOOD), *EVER)
    before = versions.settings(frame, date(2023, 5, 31))
    assert before == {name: setting.default for name, setting in CONFIGURATIONS.items()}
    now = versions.settings(frame, date(2024, 4, 30))
    assert (now["indicators.ema_window"], now["indicators.vwap_mode"]) == (20, "rolling")
    assert now["ledger.commission_rate"] == Decimal("0.001")
    assert versions.settings(frame, date(2024, 5, 1))["ledger.commission_rate"] == Decimal("0.00075")
    assert {name: type(value) for name, value in now.items()} == {name: type(value) for name, value in before.items()}


# --- differences -----------------------------------------------------------------------------------------


def against(text, stored=GOOD):
    """Differences of the declared ``text`` from what is stored after ``stored`` was applied."""
    return diff.differences(read(text), stored_as(read(stored)))


def test_everything_is_new_to_a_new_database_and_nothing_after_it_was_applied():
    state = read(GOOD)
    found = diff.differences(state, Stored.nothing())
    assert {item.kind for item in found} == {Kind.NEW}
    assert [sum(item.table == table for item in found) for table in diff.TABLES] == [4, 4, 5]
    diff.refuse(found)
    assert diff.differences(state, stored_as(state)) == []


def test_differences_of_a_window_are_those_of_its_partitions():
    state = read(GOOD)
    found = diff.differences(state, Stored.nothing(), date(2023, 6, 1), date(2024, 3, 1))
    assert {item.day for item in found} == {date(2023, 6, 1), START, date(2024, 2, 1)}
    found = diff.differences(state, Stored.nothing(), date(2024, 3, 1), date(2024, 3, 2))
    assert [(item.table, item.name) for item in found] == [("risk_parameters", "rules")]


def test_a_new_date_is_a_new_version():
    text = changed(
        "    - {value: 0.00075,", "    - {value: 0.0009, effective_from: 2024-04-01}\n    - {value: 0.00075,"
    )
    new, later = against(text)
    assert (new.kind, new.name, new.day, new.affected_from) == (
        Kind.NEW,
        "ledger.commission_rate",
        date(2024, 4, 1),
        date(2024, 4, 1),
    )
    assert (later.kind, later.day, later.affected_from) == (Kind.RENUMBERED, date(2024, 5, 1), None)
    diff.refuse([new, later])
    assert "version 2 -> 3" in str(later)


def test_a_correction_is_refused_with_its_differences_and_days_unless_rewritten():
    text = changed("parameters: {fast: 5}", "parameters: {fast: 6, slow: 30}").replace("0.00075", "0.0008")
    text = text.replace("stop_path: 1m", "stop_path: 1m\n    effective_from: 2024-01-01", 1)
    text = text.replace("      max_open_trades: 1", "      max_open_trades: 2")
    found = against(text)
    assert [str(item) for item in found] == [
        "correction in configurations: ledger.commission_rate from 2024-05-01: config_value 0.00075 "
        "-> 0.0008; affects the days from 2024-05-01",
        "correction in strategies: trend from 2024-01-01: parameters.fast 5 -> 6, parameters.slow 21 -> 30; "
        "affects the days from 2024-01-01",
        "correction in risk_parameters: trend from 2024-01-01: max_open_trades 1 -> 2; "
        "affects the days from 2024-01-01",
    ]
    with pytest.raises(SettingsError, match=r"algobot apply --rewrite(.|\n)*fast 5 -> 6(.|\n)*max_open_trades 1 -> 2"):
        diff.refuse(found)
    diff.refuse(found, rewrite=True)
    state, held = read(text), stored_as(read(GOOD))
    with pytest.raises(SettingsError, match="rewrite"):
        diff.rows_to_hold("strategies", state, held, START, date(2024, 1, 2))
    assert diff.rows_to_hold("strategies", state, held, START, date(2024, 1, 2), rewrite=True).height == 1
    assert diff.rows_to_hold("strategies", state, held, date(2024, 2, 1), date(2024, 2, 2)).height == 1


def test_writing_the_same_value_otherwise_is_no_difference():
    text = changed("0.001\n", "0.0010\n").replace("{level: 1.50, ", "{level: 15e-1, ").replace("10_000", "1e4")
    text = text.replace("parameters: {fast: 5}", "parameters: {slow: 21.0, fast: 5}")
    assert text != GOOD
    assert against(text) == []


def test_retiring_a_version_is_a_change_and_undoing_it_a_correction():
    open_ended = changed("    effective_to: 2025-01-01\n", "")
    (retired,) = against(GOOD, open_ended)
    assert (retired.kind, retired.affected_from) == (Kind.RETIREMENT, date(2025, 1, 1))
    diff.refuse([retired])
    (back,) = against(open_ended)
    assert (back.kind, back.affected_from) == (Kind.CORRECTION, date(2025, 1, 1))
    (sooner,) = against(changed("effective_to: 2025-01-01", "effective_to: 2024-11-01"))
    assert (sooner.kind, sooner.affected_from) == (Kind.CORRECTION, date(2024, 11, 1))
    with pytest.raises(SettingsError, match="effective_to 2025-01-01 -> 2024-11-01"):
        diff.refuse([sooner])


def test_entries_that_disappear_are_refused_even_with_rewrite():
    start = GOOD.index("  trend:\n")
    without = GOOD[:start] + GOOD[GOOD.index("  rules:\n") :]
    found = against(without)
    assert [(item.kind, item.table, item.name) for item in found] == [
        (Kind.DISAPPEARED, "strategies", "trend"),
        (Kind.DISAPPEARED, "risk_parameters", "trend"),
    ]
    with pytest.raises(SettingsError, match=r"write effective_to(.|\n)*trend from 2024-01-01"):
        diff.refuse(found, rewrite=True)
    with pytest.raises(SettingsError, match="Restore them"):
        diff.rows_to_hold("strategies", read(without), stored_as(read(GOOD)), START, date(2024, 1, 2), rewrite=True)


def test_a_moved_date_is_told_apart_from_a_removed_entry():
    found = against(changed("start: 2023-06-01", "start: 2023-05-01"))
    gone = [item for item in found if item.kind is Kind.DISAPPEARED and item.table == "strategies"]
    assert [item.hint for item in gone] == [
        "it is now declared from 2023-05-01, write effective_from: 2023-06-01 to keep the stored version"
    ]


def test_risk_parameters_have_versions_of_their_own():
    text = changed("effective_from: 2024-03-01", "effective_from: 2024-03-02")
    assert [(item.kind, item.table, item.day) for item in against(text)] == [
        (Kind.DISAPPEARED, "risk_parameters", date(2024, 3, 1)),
        (Kind.NEW, "risk_parameters", date(2024, 3, 2)),
    ]


def test_long_lists_of_differences_are_cut():
    many = [diff.Difference(Kind.CORRECTION, "strategies", f"s{number}", START, START) for number in range(25)]
    with pytest.raises(SettingsError) as caught:
        diff.refuse(many)
    assert str(caught.value).endswith("- and 5 more")
