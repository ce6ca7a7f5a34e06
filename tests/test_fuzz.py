"""Whatever comes in is read or refused in a sentence: klines of REST, files of the archive, the YAML file, arguments.

ALGOBOT_FUZZ (default 300) is the number of inputs tried of each kind; how many were accepted and how many refused is
printed. What the readers do with good input, and the corpus of known bad files, is tested where each reader is.
"""

from __future__ import annotations

import io
import os
import random
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from hashlib import sha256

import click
import psycopg
import pytest
from conftest import START, STATE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from algobot_assets.audit.explain import explain_trade
from algobot_assets.audit.staleness import due
from algobot_assets.audit.verify import verify
from algobot_assets.cli.app import cli, main
from algobot_assets.client import connect
from algobot_assets.compute.strategies import get_strategy, strategy_types
from algobot_assets.declared.reading import load
from algobot_assets.errors import AlgobotError, BadCandles, SettingsError
from algobot_assets.feed import archive, klines
from algobot_assets.feed.archive_files import ArchiveName

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


def test_fuzzed_rest_rows_are_read_or_refused(outcomes):
    @given(ROWS)
    @settings(**COMMON)
    def one(rows):
        survives(outcomes, lambda: klines.from_rest(rows, "BTCUSDT", "1h", lo=NAME.lo, hi=NAME.hi), BadCandles)

    one()


def lines(rows: list[list[object]]) -> bytes:
    return "\n".join(",".join(map(str, row)) for row in rows).encode("utf-8", "replace")


def test_fuzzed_archive_csvs_are_read_or_refused(outcomes):
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


def test_fuzzed_archive_zips_are_read_or_refused(outcomes):
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
def test_archive_zips_with_other_members_are_refused(members, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadCandles, match="nothing of it is used"):
        read_zip(zipped(members))
    assert list(tmp_path.iterdir()) == []


def test_fuzzed_declared_files_are_read_or_refused(outcomes, tmp_path):
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


def commands() -> list[tuple[list[str], list[str]]]:
    """Every command with the options it knows, as click has them: what is added later is tried too."""
    found, groups = [], [([], cli)]
    while groups:
        path, group = groups.pop()
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                groups.append(([*path, name], command))
            else:
                options = [text for parameter in command.params for text in parameter.opts if text.startswith("-")]
                found.append(([*path, name], options))
    return found


COMMANDS = commands()
WORDS = st.sampled_from(
    ["2016-01-01", "2024-01-31", "2024-02-30", "0000-00-00", "99999-01-01", "-1", "0", "", "9" * 40, "1e999", "nan",
     "'; DROP TABLE market_data; --", "../../etc/passwd", "/dev/null", "\u202e", "BTCUSDT 1h", "BTCUSDT", "1h", "cross",
     "market_data", "fast=5:50:5", "fast=5:50:0", "fast=a:b", "=", "--unknown", "--", "-h", "1" * 400, "2024-01"]
) | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=8)  # fmt: skip
LINES = st.sampled_from(COMMANDS).flatmap(
    lambda known: st.lists(st.sampled_from(known[1]) | WORDS if known[1] else WORDS, max_size=5).map(
        lambda words: [*known[0], *(word for word in words if word != "--traceback")]
    )
)


def test_fuzzed_arguments_never_end_in_a_traceback(outcomes, monkeypatch, tmp_path, capsys):
    """Whatever is written after `algobot` ends with an answer or a sentence; the database cannot be reached here."""
    for name, value in {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
        "CONNECT_TIMEOUT": "1",
        "STATE_FILE": tmp_path / "none.yaml",
        "HOME": tmp_path / "home",
        "SOURCE": tmp_path / "klines",
    }.items():
        monkeypatch.setenv(f"ALGOBOT_{name}", str(value))
    monkeypatch.chdir(tmp_path)

    @given(LINES)
    @settings(**COMMON)
    def one(line):
        try:
            main(line)
            outcomes["accepted"] += 1
        except SystemExit as ended:
            said = capsys.readouterr()
            assert "Traceback" not in said.err + said.out, line
            assert said.err.strip() or said.out.strip() or isinstance(ended.code, str), line
            outcomes["refused" if ended.code else "accepted"] += 1

    one()
    assert {path.name for path in tmp_path.iterdir()} <= {"home"}


HOSTILE = {
    "numeric": ["NaN", "-1", "0", "99999999999", "0.00000001"],
    "float8": ["NaN", "Infinity", "-Infinity", "1e308", "-0"],
    "timestamptz": ["infinity", "-infinity", "0001-01-01", "9999-12-31", "1970-01-01", "294276-01-01"],
    "date": ["infinity", "-infinity", "0001-01-01", "9999-12-31", "5874897-01-01"],
    "varchar": ["", "x", "'; DROP TABLE lineage; --", "{}", "%s", "../..", "\u202e", "1h", "1M"],
    "text": ["", "x" * 5_000, "%s{}", "\x01"],
    "jsonb": ["null", "[]", "1e400", '{"fast": "x"}', '{"fast": -1, "slow": 0}', '{"a": {"b": [[[[[]]]]]}}'],
    "int4": ["-1", "0", "2147483647"],
    "int8": ["-1", "0", "9223372036854775807"],
    "bytea": ["\\x", "\\x00", "\\x" + "ff" * 200],
    "_float8": ["{}", "{NULL}", "{NaN}", "{{1,2},{3,4}}", "[5:6]={1,2}", "{Infinity,1e308}"],
    "bool": ["true", "false"],
}


def test_content_written_by_others_is_shown_as_text(outcomes, project, store, database_url, monkeypatch, capsys):
    """One value of a row is replaced by hand: everything that reads it answers, or says what is wrong.

    What the database itself refuses is counted too. The value is put back after each."""
    monkeypatch.setenv("ALGOBOT_STATE_FILE", str(project.state))
    first, last = START, START + timedelta(days=3)
    result = project.run(first, last)
    assert result.success, result.error
    draw, client, crashed = random.Random(1), connect(), []
    with psycopg.connect(database_url, autocommit=True) as owner:
        (trade,) = owner.execute("SELECT min(id) FROM trade_history").fetchone()
        columns = owner.execute(
            """SELECT c.relname, a.attname, t.typname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
                 JOIN pg_type AS t ON t.oid = a.atttypid
                WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                  AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = '' AND c.relname <> 'alembic_version'"""
        ).fetchall()
        readers = {
            "verify": lambda: list(verify(store, first, last)),
            "what is due": lambda: due(store),
            "explain": lambda: explain_trade(store, trade),
            "candles": lambda: client.candles_with_indicators("BTCUSDT", "1h", first),
            "signals": lambda: client.signals("BTCUSDT", "1h"),
            "latest": lambda: client.latest_signal("cross"),
            "trades": lambda: (client.trades(), client.metrics(), client.results()),
            "declared": lambda: (client.strategies(), client.risk_parameters(), client.configuration()),
            "markets": client.markets,
            "status": lambda: main(["status"]),
        }
        for _ in range(int(os.environ.get("ALGOBOT_FUZZ_ROWS", "10"))):
            table, column, kind = draw.choice(columns)
            value = draw.choice(HOSTILE.get(kind, [""]))
            changed = replaced(owner, table, column, kind, value, draw)
            if changed is None:
                outcomes["refused by the database"] += 1
                continue
            for name, read in readers.items():
                try:
                    read()
                    outcomes["accepted"] += 1
                except (AlgobotError, SystemExit) as said:
                    assert str(said)
                    outcomes["refused"] += 1
                except Exception as error:
                    crashed.append(f"{name} of {table}.{column} = {value!r}: {error!r:.300}")
            capsys.readouterr()
            changed()
    client.close()
    assert crashed == [], "\n".join(crashed)


def replaced(owner, table: str, column: str, kind: str, value: str, draw: random.Random) -> Callable[[], None] | None:
    """Put the value into some row; what puts the old one back, or None where the database refuses or has no row."""
    names = {"table": sql.Identifier(table), "column": sql.Identifier(column), "kind": sql.SQL(kind)}
    rows = owner.execute(sql.SQL("SELECT tableoid, ctid::text, {column}::text FROM {table}").format(**names)).fetchall()
    if not rows:
        return None
    part, place, old = draw.choice(rows)
    change = sql.SQL("UPDATE {table} SET {column} = %s::{kind} WHERE tableoid = %s AND ctid = %s::tid RETURNING ctid")
    try:
        place = owner.execute(change.format(**names), (value, part, place)).fetchone()[0]
    except psycopg.Error:
        return None
    marks = "DELETE FROM dirty_days"  # of the changes made here

    def back() -> None:
        try:
            owner.execute(change.format(**names), (old, part, place))
        except psycopg.errors.UniqueViolation:  # what was missed has been written again meanwhile
            owner.execute(sql.SQL("DELETE FROM {table} WHERE ctid = %s::tid").format(**names), (place,))
        owner.execute(marks)

    return back
