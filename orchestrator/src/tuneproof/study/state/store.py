"""The study's memory: one SQLite file of finished work, keyed by the content of its inputs.

Work with the same inputs is done once, whichever study asks for it. A row is written when its
work is finished, in a transaction of its own, so that a kill loses only the work in flight.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import Corrupted, NotFound, TuneproofError, WrongState

N = TypeVar("N", bound=Hashable)
Kind = Literal[
    "corpus", "retrieval", "training", "answer", "grade", "choice", "pool", "timing", "forgetting",
]  # fmt: skip
"""The reader's and the judge's checks are answers and grades too."""

FILE_NAME = "study.sqlite"
_ADVICE = {
    sqlite3.SQLITE_FULL: "free space on that disk",
    sqlite3.SQLITE_READONLY: "it cannot be written; make it writable, or name another --state",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened or made; check its permissions and its disk",
    sqlite3.SQLITE_IOERR: "its disk fails or is full; free space, or mend the disk",
    sqlite3.SQLITE_PERM: "you may not use it; name another --state",
    sqlite3.SQLITE_BUSY: "another program has locked it; end that program",
}
"""What to do where the file itself is good, by SQLite's result code."""
_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, inputs TEXT NOT NULL, output TEXT NOT NULL,
    created TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS failures (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, message TEXT NOT NULL, created TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS studies (
    name TEXT PRIMARY KEY, resolved TEXT NOT NULL, updated TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS rates (
    stage TEXT NOT NULL, model TEXT NOT NULL, seconds REAL NOT NULL, pieces INTEGER NOT NULL,
    PRIMARY KEY (stage, model)
);
CREATE TABLE IF NOT EXISTS stages (
    study TEXT NOT NULL, stage TEXT NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (study, stage)
);
CREATE TABLE IF NOT EXISTS counts (
    study TEXT NOT NULL, stage TEXT NOT NULL, done INTEGER NOT NULL, total INTEGER NOT NULL,
    failed INTEGER NOT NULL, fresh INTEGER NOT NULL, seconds REAL NOT NULL, spec TEXT NOT NULL,
    PRIMARY KEY (study, stage)
);
CREATE TABLE IF NOT EXISTS labels (
    study TEXT NOT NULL, sheet TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (study, sheet)
);
CREATE INDEX IF NOT EXISTS trainings ON results (kind) WHERE kind = 'training';
"""

_BY_STUDY = (("studies", "name"), ("stages", "study"), ("counts", "study"), ("labels", "study"))
_CHOSEN = " WHERE key IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True, slots=True)
class Task:
    """Work that is known by its inputs."""

    kind: Kind
    inputs: Mapping[str, Any]
    """JSON values: exactly what can change the output."""
    key: str
    """sha256 over kind and inputs."""


@dataclass(frozen=True, slots=True)
class Count:
    """How far one stage of a study is."""

    study: str
    stage: str
    done: int
    total: int
    """Counts each cell's answer to each item; equal inputs share one piece of work."""
    failed: int
    """How many of the others were tried and failed."""
    fresh: int = 0
    """Pieces that the last run has done, or the run under way."""
    seconds: float = 0.0
    """How long it took that run."""

    @property
    def seconds_left(self) -> float | None:
        """At the rate of that run; None where it has done nothing yet."""
        left = self.total - self.done
        if not left:
            return 0.0
        return self.seconds / self.fresh * left if self.fresh else None


def task(kind: Kind, inputs: Mapping[str, Any]) -> Task:
    """Names work by its content."""
    return Task(kind, inputs, sha256_of_json({"kind": kind, "inputs": dict(inputs)}))


class State:
    """The results file. Used by one thread."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._together = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """All that is put, failed and recounted in this context is written, or nothing of it."""
        if self._together:
            yield
            return
        self._together = True
        try:
            with self._database:
                yield
        finally:
            self._together = False

    def get(self, key: str) -> Any | None:
        """The output under a key, or None."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Outputs of those keys that have one."""
        found = self._select("SELECT key, output FROM results", keys)
        return {key: json.loads(output) for key, output in found.items()}

    def outputs(self, tasks: Mapping[N, Task]) -> dict[N, Any]:
        """Outputs by the names of their tasks, of those that have one."""
        found = self.get_many(each.key for each in tasks.values())
        return {name: found[each.key] for name, each in tasks.items() if each.key in found}

    def missing(self, tasks: Iterable[Task]) -> list[Task]:
        """Tasks without an output: each key once, in order."""
        by_key = {each.key: each for each in tasks}
        left = self.without_output(by_key)
        return [each for key, each in by_key.items() if key in left]

    def without_output(self, keys: Iterable[str]) -> set[str]:
        """Those keys that have none."""
        asked = set(keys)
        return asked - self._select("SELECT key, kind FROM results", asked).keys()

    def put(self, done: Task, output: Any, counts: Iterable[Count] = ()) -> None:
        """Writes an output to the disk, and deletes an earlier failure of the task.

        Args:
            counts: of the stages to which the task belongs, with this output; both are written, or
                neither.
        """
        row = (
            done.key,
            done.kind,
            json.dumps(dict(done.inputs), sort_keys=True, allow_nan=False),
            json.dumps(output, sort_keys=True, allow_nan=False),
            _now(),
        )
        with self.together():
            self._database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)", row)
            self._database.execute("DELETE FROM failures WHERE key = ?", [done.key])
            self._count(counts)

    def fail(self, tried: Task, message: str, counts: Iterable[Count] = ()) -> None:
        """Notes why a task has no output; the next run tries again.

        Args:
            counts: as for `put`.
        """
        row = (tried.key, tried.kind, message, _now())
        with self.together():
            self._database.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", row)
            self._count(counts)

    def count(self, counts: Sequence[Count], spec: str) -> None:
        """Keeps how far each stage of a study is.

        Args:
            spec: digest of the study file that they count.
        """
        rows = [
            (c.study, c.stage, c.done, c.total, c.failed, c.fresh, c.seconds, spec) for c in counts
        ]
        with self._database:
            self._database.executemany(
                "DELETE FROM counts WHERE study = ?", {row[:1] for row in rows}
            )
            self._database.executemany("INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def counts(self, study: str, spec: str) -> list[Count]:
        """What the last run of this study file counted, by stage; nothing where none did."""
        query = (
            "SELECT study, stage, done, total, failed, fresh, seconds FROM counts"
            " WHERE study = ? AND spec = ? ORDER BY rowid"
        )
        try:
            return [Count(*row) for row in self._database.execute(query, [study, spec])]
        except sqlite3.OperationalError:  # an older version wrote the file
            return []

    def recount(self, counts: Iterable[Count]) -> None:
        """Keeps new counts of stages that `count` has named."""
        with self.together():
            self._count(counts)

    def _count(self, counts: Iterable[Count]) -> None:
        self._database.executemany(
            "UPDATE counts SET done = ?, failed = ?, fresh = ?, seconds = ?"
            " WHERE study = ? AND stage = ?",
            [(c.done, c.failed, c.fresh, c.seconds, c.study, c.stage) for c in counts],
        )

    def failures(self, keys: Iterable[str]) -> dict[str, str]:
        """Messages of those keys whose last try failed."""
        return self._select("SELECT key, message FROM failures", keys)

    def _select(self, query: str, keys: Iterable[str]) -> dict[str, str]:
        """The second column by the first, of those keys that are there."""
        return dict(self._database.execute(query + _CHOSEN, [json.dumps(list(keys))]))

    def remember_study(self, name: str, resolved: Mapping[str, Any]) -> None:
        """Keeps the flags of a study's last run, so that a report needs only the study file."""
        row = (name, json.dumps(dict(resolved), sort_keys=True), _now())
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO studies VALUES (?, ?, ?)", row)

    def study(self, name: str) -> dict[str, Any] | None:
        """What `remember_study` kept, or None."""
        row = self._database.execute(
            "SELECT resolved FROM studies WHERE name = ?", [name]
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def set_labels(self, study: str, sheets: Mapping[str, Any]) -> None:
        """Keeps what people were asked about a study and what each said, instead of before."""
        rows = [(study, name, json.dumps(sheet, sort_keys=True)) for name, sheet in sheets.items()]
        with self._database:
            self._database.execute("DELETE FROM labels WHERE study = ?", [study])
            self._database.executemany("INSERT INTO labels VALUES (?, ?, ?)", rows)

    def labels(self, study: str) -> dict[str, Any]:
        """What `set_labels` kept."""
        query = "SELECT sheet, content FROM labels WHERE study = ?"
        try:
            found = dict(self._database.execute(query, [study]))
        except sqlite3.OperationalError:  # an older version wrote the file
            return {}
        return {name: json.loads(content) for name, content in found.items()}

    def add_seconds(self, study: str, stage: str, seconds: float) -> None:
        """Adds to a stage's wall time, over all runs of the study."""
        with self._database:
            self._database.execute(
                "INSERT INTO stages VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET seconds = seconds + excluded.seconds",
                [study, stage, seconds],
            )

    def add_rate(self, stage: str, model: str, seconds: float, pieces: int) -> None:
        """Adds to the pieces that a stage did with a model, over all studies."""
        with self._database:
            self._database.execute(
                "INSERT INTO rates VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " seconds = seconds + excluded.seconds, pieces = pieces + excluded.pieces",
                [stage, model, seconds, pieces],
            )

    def rate(self, stage: str, model: str) -> float | None:
        """Seconds by piece; None where nothing was measured."""
        query = "SELECT seconds / pieces FROM rates WHERE stage = ? AND model = ?"
        try:
            row = self._database.execute(query, [stage, model]).fetchone()
        except sqlite3.OperationalError:  # an older version wrote the file
            return None
        return None if row is None else float(row[0])

    def trainings(self) -> list[dict[str, Any]]:
        """The outputs of all trainings."""
        query = "SELECT output FROM results WHERE kind = 'training'"
        return [json.loads(output) for (output,) in self._database.execute(query)]

    def sizes(self) -> Iterator[tuple[str, str, int]]:
        """Key, kind and bytes of everything finished or failed."""
        for table, value in (("results", "inputs || output"), ("failures", "message")):
            yield from self._database.execute(
                f"SELECT key, kind, length(CAST(key || {value} AS BLOB)) FROM {table}"  # noqa: S608 - constants
            )

    def rows(self, kind: Kind, keys: Iterable[str]) -> list[tuple[Any, Any]]:
        """Inputs and outputs of finished work of one kind, of those keys that have one."""
        query = (
            "SELECT inputs, output FROM results"
            " WHERE kind = ? AND key IN (SELECT value FROM json_each(?))"
        )
        found = self._database.execute(query, [kind, json.dumps(list(keys))])
        return [(json.loads(inputs), json.loads(output)) for inputs, output in found]

    def studies(self) -> list[str]:
        """Names of the studies that ran here."""
        return [name for (name,) in self._database.execute("SELECT name FROM studies")]

    def forget(self, keys: Iterable[str], studies: Iterable[str]) -> None:
        """Deletes work, and what is remembered of studies, and gives the space back."""
        gone, names = json.dumps(list(keys)), json.dumps(list(studies))
        with self._database:
            for table in ("results", "failures"):
                self._database.execute(f"DELETE FROM {table}{_CHOSEN}", [gone])  # noqa: S608 - constants
            for table, name in _BY_STUDY:
                chosen = _CHOSEN.replace("key", name)
                self._database.execute(f"DELETE FROM {table}{chosen}", [names])  # noqa: S608 - constants
        self._database.execute("VACUUM")
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def seconds(self, study: str) -> dict[str, float]:
        """Wall time by stage."""
        query = "SELECT stage, seconds FROM stages WHERE study = ? ORDER BY rowid"
        return dict(self._database.execute(query, [study]))


@contextmanager
def open_state(folder: Path, *, write: bool) -> Iterator[State]:
    """Opens the results file of a state folder.

    Args:
        write: make it if it is missing; the caller holds the lock (`tuneproof.study.state.lock`).

    Raises:
        NotFound: there is none, and `write` is False.
        WrongState: its disk is full, or it cannot be written; what it holds is kept.
        Corrupted: it is another kind of file, or of another version.
    """
    path = folder / FILE_NAME
    if not write and not path.exists():
        raise NotFound(f"there is no study state in {folder}: run `tuneproof study run` first")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path, timeout=30)) as database:
            _prepare(database, path, write=write)
            yield State(database)
    except sqlite3.DatabaseError as error:
        raise _explain(error, path) from error


def _explain(error: sqlite3.DatabaseError, path: Path) -> TuneproofError:
    """A full disk leaves a good file; a file that is not a database stays broken."""
    # The extended codes (a read-only folder, say) hold the primary one in their lowest byte.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _ADVICE:
        return WrongState(
            f"{path}: {error}: {_ADVICE[code]}, and give the same command again; what is done is"
            " kept"
        )
    return Corrupted(f"{path} cannot be used ({error}): move it away to start over")


def _prepare(database: sqlite3.Connection, path: Path, *, write: bool) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version == 1:
        _name_trainings_by_content(database)
    elif version not in (0, _VERSION):
        raise Corrupted(
            f"{path} is of version {version}, but this program reads version {_VERSION}"
        )
    if write:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript(_SCHEMA)
        database.execute(f"PRAGMA user_version = {_VERSION}")


def _name_trainings_by_content(database: sqlite3.Connection) -> None:
    """From version 1, where trainings of equal content had keys of their own, by adapter name."""
    rows = database.execute(
        "SELECT key, inputs, output, created FROM results WHERE kind = 'training'"
    ).fetchall()
    with database:
        for key, inputs, output, created in rows:
            given = json.loads(inputs)
            given.pop("adapter_name", None)
            renamed = task("training", given)
            row = renamed.key, renamed.kind, json.dumps(given, sort_keys=True), output, created
            database.execute("DELETE FROM results WHERE key = ?", [key])
            database.execute("INSERT OR IGNORE INTO results VALUES (?, ?, ?, ?, ?)", row)
        database.execute(f"PRAGMA user_version = {_VERSION}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
