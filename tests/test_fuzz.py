"""Whatever comes in is read or refused in a sentence: klines of REST, files of the archive, the YAML file, arguments.

ALGOBOT_FUZZ (default 300) is the number of inputs tried of each kind; how many were accepted and how many refused is
printed. What the readers do with good input, and the corpus of known bad files, is tested where each reader is.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from hashlib import sha256

import pytest
from conftest import START, STATE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from algobot_assets import cli
from algobot_assets.compute.strategies import get_strategy, strategy_types
from algobot_assets.declared.reading import load
from algobot_assets.errors import AlgobotError, BadCandles, SettingsError
from algobot_assets.feed import archive, klines
from algobot_assets.feed.archive import ArchiveName

TYPES = {kind: get_strategy(kind).resolve for kind in strategy_types()}
TRIED = int(os.environ.get("ALGOBOT_FUZZ", "300"))
COMMON = {
    "max_examples": TRIED,
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}
NAME = ArchiveName("BTCUSDT", "1h", "daily", date(2024, 1, 31))
GOOD = [1706659200000, "100.5", "101", "99.25", "100.75", "12.5", 1706662799999, "1255.5", 42, "6.1", "612.3", "0"]
NUMBERS = st.sampled_from(
    ["NaN", "nan", "-nan", "Infinity", "-1", "-0", "1e400", "1e-9", "9" * 40, "0." + "3" * 40, "", " ", "0x10", "1_0",
     "١", "1,5", "null", "\x00", "2147483648", "1706659200000000", "-1706659200000"]
)  # fmt: skip
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | NUMBERS


@pytest.fixture
def outcomes(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Counts what became of the inputs, and prints it."""
    counted: Counter[str] = Counter()
    yield counted
    assert counted["refused"], "nothing that was tried was bad"
    with capsys.disabled():
        print(f"\n{request.node.name}: {counted.total()} inputs, {dict(counted)}")


def survives(outcomes: Counter[str], work: Callable[[], object], kind: type[AlgobotError]) -> None:
    """It works, or is refused with a sentence of its kind."""
    try:
        work()
        outcomes["accepted"] += 1
    except kind as error:
        said = str(error)
        assert said and "Traceback" not in said and len(said) < 5_000
        outcomes["refused"] += 1


ROWS = st.lists(
    st.lists(st.tuples(st.integers(0, 11), ANYTHING), max_size=3).map(
        lambda edits: [dict(edits).get(place, value) for place, value in enumerate(GOOD)]
    )
    | st.lists(ANYTHING, max_size=14),
    min_size=1,
    max_size=4,
)


def test_rows_of_rest(outcomes):
    @given(ROWS)
    @settings(**COMMON)
    def one(rows):
        survives(outcomes, lambda: klines.from_rest(rows, "BTCUSDT", "1h", lo=NAME.lo, hi=NAME.hi), BadCandles)

    one()


def lines(rows: list[list[object]]) -> bytes:
    return "\n".join(",".join(map(str, row)) for row in rows).encode("utf-8", "replace")


def test_csv_of_the_archive(outcomes):
    damage = st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=2)

    @given(ROWS.map(lines) | st.binary(max_size=80), damage)
    @settings(**COMMON)
    def one(text, damages):
        for place, bytes_ in damages:
            text = text[:place] + bytes_ + text[place + 1 :]
        survives(outcomes, lambda: klines.from_csv(text, "BTCUSDT", "1h", lo=NAME.lo, hi=NAME.hi), BadCandles)

    one()


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, data in members:
            made.writestr(zipfile.ZipInfo(name, (2024, 2, 1, 0, 0, 0)), data, compress_type=method)
    return buffer.getvalue()


def read_zip(data: bytes) -> object:
    return archive.read_zip(data, NAME, sha256(data).hexdigest())


def test_zips_of_the_archive(outcomes):
    good = zipped([(f"{NAME.stem}.csv", lines([GOOD]))])
    damage = st.lists(st.tuples(st.integers(0, len(good)), st.binary(max_size=4)), min_size=1, max_size=3)
    assert read_zip(good).frame.height == 1

    @given(damage)
    @settings(**COMMON)
    def one(damages):
        data = good
        for place, bytes_ in damages:
            data = data[:place] + bytes_ + data[place + len(bytes_) :]
        survives(outcomes, lambda: read_zip(data), BadCandles)

    one()


@pytest.mark.parametrize(
    "members",
    [
        [("../../etc/passwd", b"x")],
        [("/tmp/x.csv", b"x")],
        [("C:\\x.csv", b"x")],
        [(f"../{NAME.stem}.csv", lines([GOOD]))],
        [("BTCUSDT-1h-2024-02-01.csv", lines([GOOD]))],
        [(f"{NAME.stem}.csv", lines([GOOD])), ("more.csv", b"x")],
        [],
        [(f"{NAME.stem}.csv", b"0" * 300_000_000)],  # 300 kB as it arrives
    ],
    ids=["traversal", "absolute", "drive", "traversal and right name", "other day", "two", "none", "bomb"],
)
def test_zips_with_other_members(members, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadCandles, match="nothing of it is used"):
        read_zip(zipped(members))
    assert list(tmp_path.iterdir()) == []


def test_the_declared_state(outcomes, tmp_path):
    state, path = STATE.format(start=START), tmp_path / "algobot.yaml"
    pieces = st.sampled_from(
        ["&a ", "*a", "!!python/object:os.system ", "<<: ", "---\n", "{", "[", "'", "- ", ": ", "\t", "\x00", "\ufeff",
         "unknown: 1\n", "markets", "null", "1e999", "9" * 80, "2024-02-30", "yes", "&a [*a,*a]", "\u2028", "%YAML 9\n"]
    )  # fmt: skip
    edits = st.lists(st.tuples(st.integers(0, len(state)), st.integers(0, 9), pieces), min_size=1, max_size=3)

    @given(edits.map(lambda found: edited(state, found).encode()) | st.binary(max_size=60))
    @settings(**COMMON)
    def one(data):
        path.write_bytes(data)
        survives(outcomes, lambda: load(path, TYPES), SettingsError)

    one()


def edited(text: str, edits: list[tuple[int, int, str]]) -> str:
    for place, length, new in edits:
        text = text[:place] + new + text[place + length :]
    return text


COMMANDS = ("backfill", "apply", "refresh", "verify", "status", "explain", "retention", "restore", "db", "sweep")
WORDS = st.sampled_from(
    ["--table", "--from", "--to", "--traceback", "--source", "2016-01-01", "2024-02-30", "0000-00-00", "99999-01-01",
     "-1", "", "'; DROP TABLE market_data; --", "../../x", "\u202e", "market_data", "--unknown", "--", "1" * 400]
) | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=8)  # fmt: skip


def test_arguments_of_the_command(outcomes, monkeypatch, tmp_path, capsys):
    """No argument gets anywhere near the database here: its address leads nowhere."""
    for name, value in {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
        "CONNECT_TIMEOUT": "1",
        "STATE_FILE": tmp_path / "none.yaml",
        "HOME": tmp_path / "home",
        "SOURCE": tmp_path,
    }.items():
        monkeypatch.setenv(f"ALGOBOT_{name}", str(value))

    @given(st.sampled_from(COMMANDS), st.lists(WORDS, min_size=1, max_size=4))
    @settings(**{**COMMON, "max_examples": min(TRIED, 120)})
    def one(command, arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main([command, *(word for word in arguments if word != "--traceback"), "--no-such-option"])
        said = capsys.readouterr().err
        assert ended.value.code not in (0, None) and said and "Traceback" not in said
        outcomes["refused"] += 1

    one()
    assert list(tmp_path.iterdir()) == []
