"""Download files of Binance's public archive and verify their checksums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter

from algobot_assets.errors import BadCandles, SourceError, SourceUnavailable
from algobot_assets.feed.archive_files import ArchiveName, check_sum, file_named, published_sum, read_zip
from algobot_assets.feed.bounded_read import TooSlow, read_parts
from algobot_assets.feed.retry import Retry, Transient, retry_after
from algobot_assets.feed.source import Fetched

ARCHIVE_URL = "https://data.binance.vision"


class Archive:
    """Binance's archive over HTTP.

    url: base address; the files are below its data/. workers: number of files downloaded at the same time.
    timeout: seconds to connect and between two bytes; deadline: seconds for a whole file.
    """

    def __init__(
        self,
        url: str = ARCHIVE_URL,
        *,
        workers: int = 4,
        timeout: tuple[float, float] = (5.0, 20.0),
        deadline: float = 300.0,
        retry: Retry | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._host = urlsplit(url).netloc
        self._workers = workers
        self._timeout = timeout
        self._deadline = deadline
        self._retry = retry or Retry()
        self._session = requests.Session()
        self._session.headers["Accept-Encoding"] = "identity"  # the checksum covers the bytes as stored
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=workers))

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def read(self, name: ArchiveName) -> Fetched | None:
        """Return the candles of one file; None if it is not published.

        If the checksum does not match, both file and checksum are downloaded once more, because Binance may have
        replaced the file meanwhile. Errors: BadCandles, SourceUnavailable, SourceError.
        """
        for last in (False, True):
            data = self._get(name.path, name.most_bytes, name.described)
            if data is None:
                return None
            published = self._get(f"{name.path}.CHECKSUM", 1024, name.described)
            try:
                digest = check_sum(data, None if published is None else published.decode("utf-8", "replace"), name)
            except BadCandles:
                if last:
                    raise
                continue
            return read_zip(data, name, digest)
        raise AssertionError("the loop above returns or raises")

    def read_all(self, names: Iterable[ArchiveName]) -> Iterator[tuple[ArchiveName, Fetched | BadCandles | None]]:
        """Read several files in parallel and yield them in the order given; an unusable file yields its
        error."""

        def one(name: ArchiveName) -> Fetched | BadCandles | None:
            try:
                return self.read(name)
            except BadCandles as error:
                return error

        names = list(names)
        with ThreadPoolExecutor(self._workers) as pool:
            yield from zip(names, pool.map(one, names), strict=True)

    def checksums(self, symbol: str, interval: str, files: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return the checksums of several files of one market; see `Source.checksums`."""

        def one(file: tuple[str, str]) -> str | None:
            name = file_named(symbol, interval, file[1].removesuffix(".zip"))
            return self.checksum(name) if name is not None else None

        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(one, files))

    def checksum(self, name: ArchiveName) -> str | None:
        """Return the SHA-256 currently published for a file, None if there is none; a change means a replaced file."""
        line = self._get(f"{name.path}.CHECKSUM", 1024, name.described)
        return published_sum(line.decode("utf-8", "replace")) if line else None

    def _get(self, path: str, limit: int, what: str) -> bytes | None:
        return self._retry.call(self._download(path, limit, what), f"{what} from {self._host}")

    def _download(self, path: str, limit: int, what: str) -> Callable[[], bytes | None]:
        def once() -> bytes | None:
            try:
                with self._session.get(f"{self._url}/{quote(path)}", timeout=self._timeout, stream=True) as answer:
                    if answer.status_code == 404:
                        return None
                    if answer.status_code != 200:
                        raise self._meaning(answer, what)
                    body = bytearray()
                    for part in read_parts(answer, self._deadline):
                        body += part
                        if len(body) > limit:
                            raise BadCandles(
                                f"{what} is larger than {limit:,} bytes, which its period cannot hold;"
                                " nothing of it is used."
                            )
                    return bytes(body)
            except TooSlow as error:
                raise Transient(f"the file did not arrive within {self._deadline:.0f} seconds") from error
            except requests.exceptions.RequestException as error:
                raise Transient(f"no answer from the archive ({type(error).__name__})") from error

        return once

    def _meaning(self, answer: requests.Response, what: str) -> Exception:
        status = answer.status_code
        if status in (418, 429) or status >= 500:
            return Transient(f"the archive answered HTTP {status}", retry_after(answer.headers))
        if status == 403:
            return SourceUnavailable(
                f"{what}: {self._host} refused the request (HTTP 403, a firewall or proxy). Nothing was"
                " changed; wait a few minutes and run again."
            )
        return SourceError(
            f"{what}: {self._host} answered HTTP {status}, and retrying will not help. Check the archive's"
            " address, or take the candles from a folder."
        )
