"""Symbols beyond ASCII and dated contracts, from the file and the exchange to the tables, and near misses of both."""

from __future__ import annotations

import hashlib
import io
import itertools
import unicodedata
import zipfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from algobot_assets.cli.app import main
from algobot_assets.cli.market_option import MarketName
from algobot_assets.cli.output import emit
from algobot_assets.declared.model import Market
from algobot_assets.declared.reading import loads
from algobot_assets.errors import SettingsError
from algobot_assets.feed.archive import Archive
from algobot_assets.feed.archive_files import ArchiveName, check_sum, name_of, read_zip
from algobot_assets.feed.exchange import Exchange
from algobot_assets.feed.folder import Folder
from algobot_assets.feed.planner import ArchiveAndRest
from algobot_assets.feed.retry import Retry
from algobot_assets.feed.simulated.exchange import SimulatedExchange
from algobot_assets.feed.simulated.listings import LISTINGS, Listing
from algobot_assets.feed.simulated.prices import SimulatedPrices
from algobot_assets.schema.intervals import INTERVALS
from algobot_assets.schema.symbols import (
    delivery_of,
    end_of_trading,
    is_symbol,
    suggest_interval,
    suggest_market,
    suggest_symbol,
)

LIFE = "币安人生USDT"
CONTRACT = "BTCUSDT_210326.UM"
DELIVERY = datetime(2021, 3, 26, 8, tzinfo=UTC)


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)


PRICES = SimulatedPrices(
    (
        *LISTINGS,
        Listing(LIFE, "币安人生", "USDT", utc(2021, 2, 10, 12), 0.2, Decimal("0.0001"), Decimal("0.1"), 9_000),
        Listing(
            CONTRACT, "BTC", "USDT", utc(2021, 1, 20, 7), 30_000, Decimal("0.1"), Decimal("0.001"), 3_000_000,
            delisted=DELIVERY, decimals=(2, 3, 5),
        ),
    )
)  # fmt: skip


@pytest.mark.parametrize("symbol", ["BTCUSDT", LIFE, "BTCUSDT.UM", CONTRACT, "1INCHUSDT", "1000SATSUSDT", "ÉUSDT"])
def test_spellings_of_binance_are_symbols(symbol: str) -> None:
    assert is_symbol(symbol)
    assert suggest_symbol(symbol) is None
    assert Market(symbol, "1h", date(2025, 1, 1)).name == f"{symbol} 1h"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("btcusdt", "BTCUSDT"),
        ("BTC/USDT", "BTCUSDT"),
        ("BTC-USDT", "BTCUSDT"),
        ("btc_usdt", "BTCUSDT"),
        ("币安人生/usdt", LIFE),
        ("BTC/USDT:USDT", "BTCUSDT.UM"),
        ("BTCUSDT-PERP", "BTCUSDT.UM"),
        ("BTC/USDT:USDT-210326", CONTRACT),
        ("BTCUSDT_210326", CONTRACT),
        ("btcusdt.um", "BTCUSDT.UM"),
        ("BTCUSDT_219999.UM", None),
        ("ABCDEFGHIJKLMNOPQRSTU.UM", None),
        ("x", None),
        ("", None),
    ],
)
def test_other_spellings_are_refused_with_the_right_one(written: str, meant: str | None) -> None:
    assert not is_symbol(written)
    assert suggest_symbol(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [("60m", "1h"), ("1H", "1h"), ("1D", "1d"), ("15M", "15m"), ("1W", "1w"), ("1mo", "1M"), ("1 hour", "1h"),
     ("24h", "1d"), ("60", "1h"), ("5min", "5m"), ("90m", None), ("", None), ("soon", None), ("9" * 5000 + "m", None)],
)  # fmt: skip
def test_other_spellings_of_an_interval_are_recognised(written: str, meant: str | None) -> None:
    assert suggest_interval(written) == meant


@given(st.text(max_size=30))
def test_any_text_is_judged_and_no_proposal_is_wrong(text: str) -> None:
    symbol, interval, market = suggest_symbol(text), suggest_interval(text), suggest_market(text)
    assert symbol is None or (is_symbol(symbol) and symbol != text)
    assert interval is None or interval in INTERVALS
    assert market is None or is_symbol(market.rpartition(" ")[0])


STATE = """
markets:
  - {{symbol: {symbol}, interval: {interval}, start: 2025-10-20}}
strategies:
  s1:
    type: ema_cross
    market: {market}
    initial_balance: 10000
    risk_per_trade: 0.01
    risk: {{max_risk_per_trade: 0.02, max_open_trades: 1, stop_loss_percentage: 2, take_profit_percentage: 4}}
"""


def declared(symbol: str = LIFE, interval: str = "1h", market: str = f"{LIFE} 1h"):
    types = {"ema_cross": lambda parameters: parameters}
    return loads(STATE.format(symbol=symbol, interval=interval, market=market), types)


def test_the_declared_state_takes_a_symbol_in_any_unicode_form() -> None:
    assert declared().markets[0].symbol == LIFE
    decomposed = unicodedata.normalize("NFD", "ÉUSDT")
    assert declared(symbol=decomposed, market=f"{decomposed} 1h").strategies[0].symbol == "ÉUSDT"


def test_the_declared_state_proposes_the_right_spelling() -> None:
    with pytest.raises(SettingsError, match=r"line 3: 'btc/usdt' is not a symbol; did you mean BTCUSDT\?"):
        declared(symbol="btc/usdt", market="btc/usdt 1h")
    with pytest.raises(SettingsError, match=r"line 3: '60m' is not an interval; did you mean 1h\?"):
        declared(interval="60m")
    with pytest.raises(SettingsError, match=r"trades `btc-usdt 1H`, not one of `markets`; did you mean `BTCUSDT 1h`"):
        declared(symbol="BTCUSDT", market="btc-usdt 1H")


def test_the_command_line_proposes_the_right_spelling() -> None:
    import click

    @click.command()
    @click.option("--market", type=MarketName())
    def command(market: str) -> None:
        click.echo(market)

    run = CliRunner().invoke
    assert run(command, ["--market", f"{LIFE}  1h"]).output == f"{LIFE} 1h\n"
    refused = run(command, ["--market", "BTC/USDT 60m"])
    assert refused.exit_code == 2 and "did you mean 'BTCUSDT 1h'?" in refused.output
    assert "Markets are written like" in run(command, ["--market", "everything"]).output


def test_a_terminal_without_the_letters_gets_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr("sys.stderr", errors)
    with pytest.raises(SystemExit):
        main(["backfill", "2025-10-20", "--market", "币安人生/usdt 60m"])
    errors.flush()
    shown = "".join(f"\\u{ord(letter):04x}" for letter in "币安人生")
    assert f"did you mean '{shown}USDT 1h'?" in errors.buffer.getvalue().decode()


def test_json_shows_symbols_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"symbol": LIFE})
    assert LIFE in capsys.readouterr().out


def test_a_contract_is_delivered_at_eight_on_the_day_in_its_name() -> None:
    assert delivery_of(CONTRACT) == DELIVERY
    assert delivery_of("BTCUSDT.UM") is delivery_of("BTCUSDT") is delivery_of("BTCUSDT_210326") is None
    assert end_of_trading(CONTRACT, date(2025, 1, 1)) == date(2021, 3, 27)
    assert end_of_trading(CONTRACT, date(2021, 3, 2)) == date(2021, 3, 2)
    assert end_of_trading("BTCUSDT.UM", date(2025, 1, 1)) == date(2025, 1, 1)


# The exchange


@pytest.fixture
def simulated():
    exchange = SimulatedExchange(PRICES, now=utc(2021, 3, 10, 6))
    exchange.start()
    yield exchange
    exchange.stop()


def connect(simulated: SimulatedExchange) -> ArchiveAndRest:
    retry = Retry(sleep=simulated.advance, clock=simulated.timestamp)
    return ArchiveAndRest(Exchange(simulated.url, retry=retry), Archive(simulated.url, retry=retry))


def test_a_symbol_beyond_ascii_comes_from_rest_and_archive(simulated: SimulatedExchange) -> None:
    source = connect(simulated)
    assert LIFE in source.symbols()
    assert source.rules(LIFE).base_asset == "币安人生"
    assert source.first_open(LIFE, "1h") == utc(2021, 2, 10, 12)
    stretches = list(source.fetch(LIFE, "1h", utc(2021, 2, 1), utc(2021, 3, 3)))
    name = ArchiveName(LIFE, "1h", "monthly", date(2021, 2, 1))
    assert {s.origin.name for s in stretches if s.origin.kind == "monthly archive"} == {f"{name.stem}.zip"}
    assert sum(s.frame.height for s in stretches) == 18 * 24 + 12 + 48
    assert source.checksums(LIFE, "1h", [("monthly archive", f"{name.stem}.zip")])[0] is not None
    assert simulated.requests[f"/{name.path}"] == 1
    source.close()


def test_a_contract_tells_its_delivery_while_it_trades(simulated: SimulatedExchange) -> None:
    source = connect(simulated)
    assert source.rules(CONTRACT).delivery == DELIVERY
    assert source.rules("BTCUSDT.UM").delivery is None
    assert source.first_open(CONTRACT, "1h") == utc(2021, 1, 20, 7)
    source.close()


@pytest.mark.parametrize("now", [utc(2021, 3, 27, 6), utc(2021, 8, 1)])
def test_a_delivered_contract_comes_from_the_archive(simulated: SimulatedExchange, now: datetime) -> None:
    simulated.set_time(now)
    source = connect(simulated)
    assert CONTRACT not in source.symbols("um")
    assert source.rules(CONTRACT) is None
    assert source.first_open(CONTRACT, "1h") == utc(2021, 1, 20, 7)
    stretches = list(source.fetch(CONTRACT, "1h", utc(2021, 1, 1), utc(2021, 3, 27)))
    frame = pl.concat([s.frame for s in stretches])
    assert frame["timestamp"][0] == utc(2021, 1, 20, 7) and frame["timestamp"][-1] == utc(2021, 3, 26, 7)
    assert frame.height == (DELIVERY - utc(2021, 1, 20, 7)) // timedelta(hours=1)
    assert all(a.hi == b.lo for a, b in itertools.pairwise(stretches)) and stretches[-1].hi >= DELIVERY
    assert not any("klines" in path and path.startswith("/fapi") for path in simulated.requests)
    source.close()


def test_files_name_a_symbol_in_any_unicode_form() -> None:
    name = ArchiveName("ÉUSDT", "1h", "daily", date(2025, 1, 2))
    assert name_of(name.path) == name
    data = b"some bytes"
    digest = hashlib.sha256(data).hexdigest()
    line = unicodedata.normalize("NFD", f"{digest}  {name.stem}.zip")
    assert check_sum(data, line, name) == digest


def test_a_zip_without_the_flag_for_utf8_is_read(tmp_path: Path) -> None:
    name = ArchiveName(LIFE, "1h", "daily", date(2025, 1, 2))
    opened = int(utc(2025, 1, 2).timestamp() * 1000)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name.stem}.csv", f"{opened},1,1,1,1,1,{opened + 3_599_999},1,1,1,1,0\n")
    data = path.read_bytes()
    plain = bytearray(data)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(mark) + offset
        plain[at : at + 2] = (int.from_bytes(data[at : at + 2], "little") & ~0x800).to_bytes(2, "little")
    assert read_zip(bytes(plain), name, "").frame.equals(read_zip(data, name, "").frame)


def test_a_folder_holds_files_of_such_symbols_in_any_unicode_form(tmp_path: Path) -> None:
    opened = int(utc(2025, 1, 2).timestamp() * 1000)
    row = f"{opened},1,1,1,1,1,{opened + 3_599_999},1,1,1,1,0\n"
    (tmp_path / f"{LIFE}-1h-2025-01.csv").write_text(row)
    (tmp_path / unicodedata.normalize("NFD", "ÉUSDT-1h-2025-01.csv")).write_text(row)
    (tmp_path / "BTCUSDT_250328-1h-2025-01.csv").write_text(row)
    folder = Folder(tmp_path)
    assert folder.symbols() == sorted([LIFE, "ÉUSDT"])
    assert folder.symbols("um") == ["BTCUSDT_250328.UM"]
    stretch = next(folder.fetch("ÉUSDT", "1h", utc(2025, 1, 1), utc(2025, 2, 1)))
    assert stretch.origin.name == "ÉUSDT-1h-2025-01.csv"
    assert folder.checksums("ÉUSDT", "1h", [("file", stretch.origin.name)]) == [stretch.origin.sha256]
