"""The errors that are written for people.

Every error a user can cause or cure is an AlgobotError: its text is one or two sentences that say what
happened, to which market and day, and what to do. The command line prints the text alone; Dagster shows
it as the failure of the step. Errors of programming stay ordinary exceptions and do not belong here.
"""

from __future__ import annotations


class AlgobotError(Exception):
    """Base of all errors whose text is meant to be read by a user."""


class SettingsError(AlgobotError):
    """A setting or the declared state is wrong; the text names the place and the cure."""


class SourceError(AlgobotError):
    """Candles could not be had from their source, for good; the text names market, source and cure."""


class SourceUnavailable(SourceError):
    """The source did not answer after the allowed retries; running again later may succeed."""


class BadCandles(SourceError):
    """The source delivered rows that cannot be candles (bad checksum, high below low, unreadable)."""


class StoreError(AlgobotError):
    """The database refused or could not be reached; nothing of the window was written."""


class WindowError(AlgobotError):
    """A run asked for a window that cannot be computed or read; the text says which and what to run first."""


class ArchivedError(WindowError):
    """Rows of an archived month would have to be written; the text names the command that brings the month back."""


class ArchiveError(StoreError):
    """A file of the archive is missing, damaged or cannot be written; the text names the file and the cure."""
