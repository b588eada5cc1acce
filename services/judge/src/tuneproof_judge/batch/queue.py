"""Requests that wait for a batch, are in one, or came out of one: tables in the cache's file.

A request's key is the completion's in the cache. Its row goes when a whole completion arrives,
which the cache then has. A refusal, or a prompt that the endpoint does not take, stays: asked
again in a batch it would hold up its grade for another day. What failed too often, or was
cancelled, is lost until a judge starts again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from tuneproof_judge.cache import BUSY_SECONDS, completion_of, is_whole, text_of
from tuneproof_judge.grade import Failure, FailureKind
from tuneproof_judge.replies import Completion

_TABLES = """
CREATE TABLE IF NOT EXISTS batches
    (name TEXT PRIMARY KEY, endpoint TEXT NOT NULL, id TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests
    (key TEXT PRIMARY KEY, endpoint TEXT NOT NULL, asked TEXT NOT NULL, batch TEXT,
     attempts INTEGER NOT NULL DEFAULT 0, result TEXT, lost INTEGER NOT NULL DEFAULT 0)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS requests_by_batch ON requests (endpoint, batch);
"""


@dataclass(frozen=True)
class Again:
    """A request that goes into a further batch."""

    failure: Failure
    """What it is where it has been tried often enough."""
    last: bool = False
    """It does not go: it is lost."""


Result = Completion | Failure | Again


class Queue:
    """The requests to one endpoint.

    Args:
        path: of the cache's file.
        endpoint: whose requests these are.
        attempts: most batches for one request.
    """

    def __init__(self, path: Path, endpoint: str, attempts: int) -> None:
        self._endpoint, self._attempts = endpoint, attempts
        self._lock = Lock()
        self._database = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(_TABLES)
        self._database.execute("DELETE FROM requests WHERE endpoint = ? AND lost", (endpoint,))
        self.trouble = ""
        """Why the endpoint takes no batch, if that is so."""

    def close(self) -> None:
        """Closes the file, once nobody reads or writes."""
        with self._lock:
            self._database.close()

    def result(self, key: str) -> Completion | Failure | None:
        """What came of a request, where that is not whole; None where it is not known."""
        found = self._rows("SELECT result FROM requests WHERE key = ? AND result NOTNULL", key)
        return _result_of(found[0][0]) if found else None

    def add(self, key: str, asked: Mapping[str, Any]) -> None:
        """Queues a request that is not there yet, unless its completion has come meanwhile."""
        with self._changing() as database:
            database.execute(
                "INSERT OR IGNORE INTO requests (key, endpoint, asked) SELECT ?, ?, ?"
                " WHERE NOT EXISTS (SELECT * FROM completions WHERE key = ?)",
                (key, self._endpoint, json.dumps(asked), key),
            )

    def counts(self) -> tuple[int, int]:
        """Requests that wait for a batch, and that are in one."""
        query = "SELECT batch IS NULL, COUNT(*) FROM requests WHERE endpoint = ? AND result IS NULL"
        found = dict(self._rows(f"{query} GROUP BY 1", self._endpoint))
        return found.get(1, 0), found.get(0, 0)

    def first(self) -> tuple[str, dict[str, Any]] | None:
        """A request that waits."""
        query = "SELECT key, asked FROM requests WHERE endpoint = ? AND batch IS NULL"
        found = self._rows(f"{query} AND result IS NULL LIMIT 1", self._endpoint)
        return (found[0][0], json.loads(found[0][1])) if found else None

    def claim(self, name: str, most: int) -> dict[str, dict[str, Any]]:
        """Puts waiting requests, so many at most, into a new batch; gives them by key."""
        with self._changing() as database:
            rows = database.execute(
                "SELECT key, asked FROM requests WHERE endpoint = ? AND batch IS NULL"
                " AND result IS NULL LIMIT ?",
                (self._endpoint, most),
            ).fetchall()
            if rows:
                database.execute("INSERT INTO batches VALUES (?, ?, NULL)", (name, self._endpoint))
            database.executemany(
                "UPDATE requests SET batch = ? WHERE key = ?", [(name, key) for key, _ in rows]
            )
        return {key: json.loads(asked) for key, asked in rows}

    def name(self, name: str, batch_id: str) -> None:
        """Keeps what the endpoint calls a batch."""
        with self._changing() as database:
            database.execute("UPDATE batches SET id = ? WHERE name = ?", (batch_id, name))

    def batches(self) -> list[tuple[str, str | None]]:
        """Those under way, by our name, with the endpoint's; None where it is not known."""
        return self._rows("SELECT name, id FROM batches WHERE endpoint = ?", self._endpoint)

    def members(self, name: str) -> dict[str, dict[str, Any]]:
        """The requests of a batch by key."""
        rows = self._rows("SELECT key, asked FROM requests WHERE batch = ?", name)
        return {key: json.loads(asked) for key, asked in rows}

    def drop(self, name: str, keys: Iterable[str] | None = None) -> None:
        """Has requests of a batch wait again; without keys all, and the batch is forgotten."""
        with self._changing() as database:
            if keys is None:
                database.execute("UPDATE requests SET batch = NULL WHERE batch = ?", (name,))
                database.execute("DELETE FROM batches WHERE name = ?", (name,))
                return
            database.executemany(
                "UPDATE requests SET batch = NULL WHERE key = ?", [(key,) for key in keys]
            )

    def arrive(self, results: Mapping[str, Result], name: str = "") -> None:
        """Keeps what came of requests; the batch, if it is named, is forgotten."""
        with self._changing() as database:
            for key, result in results.items():
                if isinstance(result, Again):
                    self._again(database, key, result)
                    continue
                if isinstance(result, Completion) and is_whole(result):
                    database.execute(
                        "INSERT OR IGNORE INTO completions VALUES (?, ?)", (key, text_of(result))
                    )
                    database.execute("DELETE FROM requests WHERE key = ?", (key,))
                    continue
                database.execute(
                    "UPDATE requests SET result = ? WHERE key = ?", (_text_of(result), key)
                )
            database.execute("DELETE FROM batches WHERE name = ?", (name,))

    def _again(self, database: sqlite3.Connection, key: str, again: Again) -> None:
        database.execute(
            "UPDATE requests SET batch = NULL, attempts = attempts + 1 WHERE key = ?", (key,)
        )
        database.execute(
            "UPDATE requests SET result = ?, lost = 1 WHERE key = ? AND (? OR attempts >= ?)",
            (_text_of(again.failure), key, again.last, self._attempts),
        )

    def _rows(self, query: str, *given: Any) -> list[Any]:
        with self._lock, closing(self._database.execute(query, given)) as rows:
            return rows.fetchall()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


def _text_of(result: Completion | Failure) -> str:
    if isinstance(result, Failure):
        return json.dumps({"failure": [result.kind, result.detail]})
    return json.dumps({"completion": text_of(result), "refusal": result.refusal})


def _result_of(text: str) -> Completion | Failure:
    values = json.loads(text)
    if "failure" in values:
        kind, detail = values["failure"]
        return Failure(FailureKind(kind), detail)
    return replace(completion_of(values["completion"]), refusal=values["refusal"])
