"""Serve the pages over HTTP for links in Dagster's UI, from where browsers follow no link to a file.

A plain file server on a socket that `algobot up` opens; it ends with the process that started it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing: Dagster logs to the same terminal."""


class _Pages(ThreadingHTTPServer):
    """A file server that ends with the process that started it."""

    def __init__(self, listening: int, folder: str) -> None:
        super().__init__(("", 0), partial(_Quiet, directory=folder), bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=listening)
        self._parent = os.getppid()

    def service_actions(self) -> None:
        """Exit once the parent process is gone; called twice a second."""
        if os.getppid() != self._parent:
            sys.exit(0)


def start(folder: Path, host: str, port: int) -> str:
    """Serve a folder from a separate process and return its address. Raise OSError if the port is in use."""
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    folder.mkdir(parents=True, exist_ok=True)
    number = listening.fileno()
    command = [sys.executable, "-m", "algobot_assets.reports.serving", str(number), str(folder)]
    subprocess.Popen(command, pass_fds=(number,), stdin=subprocess.DEVNULL, start_new_session=True)
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{listening.getsockname()[1]}"


if __name__ == "__main__":
    try:
        _Pages(int(sys.argv[1]), sys.argv[2]).serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)
