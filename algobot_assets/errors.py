"""Errors written for users.

Every error that a user can cause or fix is an AlgobotError. Its message says what happened, to which market and day,
and what to do. The command line prints only the message; Dagster shows it as the failure of the step. Bugs stay
ordinary exceptions.
"""

from __future__ import annotations


class AlgobotError(Exception):
    """Base class of all errors with a message for users."""


class SettingsError(AlgobotError):
    """An invalid setting, argument or declared state; the message names the place and the fix."""


class SourceError(AlgobotError):
    """Candles could not be fetched, and retrying will not help; the message names market, source and fix."""


class SourceUnavailable(SourceError):
    """The source did not answer after all retries; running again later may succeed."""


class BadCandles(SourceError):
    """The source delivered invalid candles (bad checksum, high below low, unreadable file)."""


class StoreError(AlgobotError):
    """The database is unreachable or refused the statement; nothing of the window was written."""


class WindowError(AlgobotError):
    """A window that cannot be computed or read; the message says which one and what to run first."""


class ArchivedError(WindowError):
    """A write to an archived month; the message names the command that restores the month."""


class ArchiveError(StoreError):
    """A file of the archive is missing, damaged or not writable; the message names the file and the fix."""
