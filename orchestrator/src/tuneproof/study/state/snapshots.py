"""Gives copies of a study's state, in its pod, on loopback: who may forward ports may read it.

    python -m tuneproof.study.state.snapshots FOLDER

Loaded beside a study, so it imports little.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import sys
import tempfile
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAME = "study.sqlite"
PORT = 8471


class Snapshots(BaseHTTPRequestHandler):
    """Answers `GET /study.sqlite` with the state as it is now: whole transactions only."""

    folder = Path()

    def do_GET(self) -> None:
        """Copies, then sends."""
        source = self.folder / NAME
        if self.path != f"/{NAME}" or not source.exists():
            self.send_error(404)
            return
        with tempfile.NamedTemporaryFile() as copy:
            with (
                closing(sqlite3.connect(source, timeout=30)) as there,
                closing(sqlite3.connect(copy.name)) as here,
            ):
                there.backup(here)
                here.execute("PRAGMA journal_mode = DELETE")
            self.send_response(200)
            self.send_header("Content-Length", str(Path(copy.name).stat().st_size))
            self.end_headers()
            with Path(copy.name).open("rb") as content:
                shutil.copyfileobj(content, self.wfile)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Says nothing."""


def main() -> None:
    """Serves until SIGTERM."""
    # The first process of a container has no default for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Snapshots.folder = Path(sys.argv[1])
    ThreadingHTTPServer(("127.0.0.1", PORT), Snapshots).serve_forever()


if __name__ == "__main__":
    main()
