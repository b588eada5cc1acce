"""Completions that were paid for, kept in SQLite.

The key holds everything that can change a completion: where it was asked for and of which model,
the prompt, with the rubric's and the answer's words, and the sampling with the repeat's seed. The
value is the completion, not a score: a score is read of it each time, so that a better parser or a
retry finds what there is.

Several processes may share a file. What two of them asked for at once is kept once, and both go on
with what is kept, so that they give the same grades.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, ParamSpec, TypeVar

import structlog

from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_judge.endpoint import ChatEndpoint
from tuneproof_judge.grade import Usage
from tuneproof_judge.layer import Layer
from tuneproof_judge.replies import Completion, Token

P = ParamSpec("P")
T = TypeVar("T")

BUSY_SECONDS = 30.0
_WHOLE = frozenset({"stop", "length"})
"""A completion that ended otherwise may end well the next time."""
_FORMAT = 1

_log = structlog.get_logger(__name__)


class Cache:
    """Completions by key, in a file."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it.

        Raises:
            InvalidInput: it is of something else, or cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        try:
            self._database = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA journal_mode = WAL")
            # A crash of the machine may lose the last completions, never the file.
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS completions"
                " (key TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID"
            )
            self._database.execute("SELECT key, content FROM completions LIMIT 1")
        except sqlite3.Error as error:
            raise InvalidInput(
                f"--cache {path} cannot be used: {error}; name a file that the judge may write",
                field="cache",
            ) from None

    def close(self) -> None:
        """Closes the file, once nobody reads or writes: who was cancelled may still do so."""
        with self._lock:
            self._database.close()

    def get(self, key: str) -> str | None:
        """What is kept."""
        with (
            self._lock,
            closing(
                self._database.execute("SELECT content FROM completions WHERE key = ?", (key,))
            ) as rows,
        ):
            row: tuple[str] | None = rows.fetchone()
        return row[0] if row else None

    def find(self, keys: Iterable[str]) -> dict[str, str]:
        """What is kept of these, by key."""
        return {key: content for key in keys if (content := self.get(key)) is not None}

    def keep(self, key: str, content: str) -> str:
        """Keeps what is not there yet; what is there afterwards."""
        with self._lock:
            self._database.execute(
                "INSERT OR IGNORE INTO completions VALUES (?, ?)", (key, content)
            )
        return self.get(key) or content


class KeyedEndpoint(Layer[ChatEndpoint]):
    """A `ChatEndpoint` before another one, which knows each completion by its key in the cache."""

    def __init__(self, endpoint: ChatEndpoint, cache: Cache) -> None:
        super().__init__(endpoint)
        self._cache = cache

    async def _completed(self, asked: Mapping[str, Any], deadline: float | None) -> Completion:
        return await self._complete(_key_of(self, asked), asked, deadline)

    @abstractmethod
    async def _complete(
        self, key: str, asked: Mapping[str, Any], deadline: float | None
    ) -> Completion:
        """As `_completed`."""


class CachedEndpoint(KeyedEndpoint):
    """Asks another endpoint for what the cache lacks; what it has takes no tokens, no request."""

    def __init__(self, endpoint: ChatEndpoint, cache: Cache) -> None:
        super().__init__(endpoint, cache)
        self._wanted: list[str] = []
        self._lookup: asyncio.Task[dict[str, str]] | None = None

    async def _complete(
        self, key: str, asked: Mapping[str, Any], deadline: float | None
    ) -> Completion:
        kept = await self._kept(key)
        if kept is not None:
            return completion_of(kept)
        made = await self._endpoint.complete(**asked, deadline=deadline)
        if not is_whole(made):
            return made
        now = await self._try(self._cache.keep, key, text_of(made))
        return made if now is None else replace(completion_of(now), usage=made.usage)

    async def _kept(self, key: str) -> str | None:
        """What is asked for at one moment is looked up as one, and goes on at one moment."""
        self._wanted.append(key)
        if self._lookup is None:
            self._lookup = asyncio.create_task(self._look_up())
        return (await asyncio.shield(self._lookup)).get(key)

    async def _look_up(self) -> dict[str, str]:
        wanted, self._wanted, self._lookup = self._wanted, [], None
        return await self._try(self._cache.find, wanted) or {}

    @staticmethod
    async def _try(work: Callable[P, T], *given: P.args, **more: P.kwargs) -> T | None:
        """A cache that fails (a full disk, a lock that lasts) costs requests, and no grade."""
        try:
            return await asyncio.to_thread(work, *given, **more)
        except sqlite3.Error as error:
            _log.warning("cache failed", error=str(error))
            return None


def _key_of(endpoint: ChatEndpoint, asked: Mapping[str, Any]) -> str:
    given = {name: value for name, value in asked.items() if name != "form" or value}
    where = {"format": _FORMAT, "url": endpoint.url, "model": endpoint.model}
    return sha256_of_json({**where, **given})


def is_whole(completion: Completion) -> bool:
    """Whether a completion is kept."""
    return not completion.refusal and completion.finish_reason in _WHOLE


def text_of(completion: Completion) -> str:
    """A whole completion as the cache keeps it, without its usage."""
    tokens = [
        [
            token.content.hex(),
            {content.hex(): share for content, share in token.alternatives.items()},
        ]
        for token in completion.tokens
    ]
    values = {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.prompt_tokens,
        "tokens": tokens,
        "refused": sorted(completion.refused),
    }
    return json.dumps(values, ensure_ascii=True)


def completion_of(content: str) -> Completion:
    """What `text_of` wrote."""
    values = json.loads(content)
    tokens = tuple(
        Token(bytes.fromhex(text), {bytes.fromhex(each): share for each, share in others.items()})
        for text, others in values["tokens"]
    )
    refused = frozenset(values.get("refused", ()))
    return Completion(
        values["text"],
        values["finish_reason"],
        "",
        Usage(),
        values["prompt_tokens"],
        tokens,
        refused,
    )
