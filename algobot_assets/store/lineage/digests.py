"""Digest rows and carried states: equal digests mean equal bits.

A day's digest covers the content columns of its rows (schema/windows.py) in their canonical order. It does not
depend on how the rows were batched, nor on surrogate keys, so it can be compared between databases.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl

#: Bytes of a digest: 128 bits make accidental collisions impossible in practice.
SIZE = 16
NOTHING = b""


def _hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=SIZE)


def digest(*parts: bytes) -> bytes:
    """Return the digest of ``parts``, each with its length, so that boundaries between parts count."""
    total = _hash()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.digest()


def state_digest(state: np.ndarray | None) -> bytes | None:
    """Return the digest of a carried state's bits; None for the empty state."""
    if state is None:
        return None
    return digest(np.ascontiguousarray(state, dtype="<f8").tobytes())


def _buffers(series: pl.Series) -> list[tuple[memoryview, int]]:
    """Return the column's nulls, if any, and values as buffers, each with its bytes per row."""
    buffers: list[tuple[memoryview, int]] = []
    if series.null_count():
        nulls = series.is_null().cast(pl.UInt8).to_numpy()
        buffers.append((np.ascontiguousarray(nulls).view(np.uint8).data, 1))
    dtype = series.dtype
    if dtype == pl.String:
        # hash each text to 64 bits; texts are few, and repeat from row to row
        texts = series.fill_null("")
        different = texts.unique()
        hashes = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in different]
        codes = texts.cast(pl.Enum(different)).to_physical().to_numpy()
        values = np.array(hashes, dtype="V8")[codes]
    elif dtype == pl.Boolean:
        values = series.fill_null(False).cast(pl.UInt8).to_numpy()
    elif isinstance(dtype, pl.Decimal):
        arrow = series.fill_null(0).rechunk().to_arrow()
        start = arrow.offset * 16
        return [*buffers, (memoryview(arrow.buffers()[1])[start : start + 16 * len(arrow)].cast("B"), 16)]
    else:
        physical = series.to_physical()
        values = physical.fill_null(0).to_numpy()
    values = np.ascontiguousarray(values)
    return [*buffers, (values.view(np.uint8).data, values.dtype.itemsize)]


def day_digests(frame: pl.DataFrame, columns: Sequence[str], days: pl.Series) -> dict[date, tuple[int, bytes]]:
    """Return the number of rows and the digest of each day that has rows.

    ``frame`` must be in canonical order with the rows of each day together; ``days`` has the Date of each row.
    """
    if frame.is_empty():
        return {}
    header = digest(*(f"{name}:{frame.schema[name]}".encode() for name in columns))
    runs = days.rle().struct.unnest()
    buffers_by_run: dict[date, tuple[int, bytes]] = {}
    if runs["value"].n_unique() != runs.height:
        raise ValueError("the rows of one day must be together")
    offset = 0
    nullable = [name for name in columns if frame[name].null_count()]
    columns_buffers = {name: _buffers(frame[name]) for name in columns}
    for length, day in runs.iter_rows():
        total = _hash()
        total.update(header)
        for name in columns:
            parts = columns_buffers[name]
            if name in nullable:
                mask, _ = parts[0]
                mask = mask[offset : offset + length]
                # nulls of another day of the frame must not change this day's digest
                if any(mask):
                    total.update(b"\x01")
                    total.update(mask)
                parts = parts[1:]
            values, width = parts[0]
            total.update(values[offset * width : (offset + length) * width])
        buffers_by_run[day] = (length, total.digest())
        offset += length
    return buffers_by_run


def content_sha256(frame: pl.DataFrame) -> bytes:
    """Return the SHA-256 of every value of the frame in its order: column names and dtypes, nulls, bits of values.

    Equal rows have equal digests however the frame is chunked; NaN and the sign of zero count.
    """
    total = hashlib.sha256(frame.height.to_bytes(8, "little"))
    for column in frame.rechunk():
        total.update(f"{column.name}:{column.dtype}:{column.null_count()};".encode())
        for values, _ in _buffers(column):
            total.update(values)
    return total.digest()
