"""Queued requests become batches, and batches become completions.

Nothing is paid for twice: a batch has a name of ours in its metadata before the endpoint knows it,
and the endpoint's id is kept before it is waited for. A judge that was killed between the two finds
its batch by that name in the endpoint's list.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx2
import openai
import structlog
from openai.types import Batch

from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import WrongState
from tuneproof.servicekit.retries import Sleep
from tuneproof_judge.batch.asking import BatchedEndpoint
from tuneproof_judge.batch.queue import Again, Queue, Result
from tuneproof_judge.cache import Cache
from tuneproof_judge.endpoint import OpenAIEndpoint, parameters
from tuneproof_judge.grade import Failure, FailureKind, Usage
from tuneproof_judge.metrics import BATCHED, REQUESTS, count_answered
from tuneproof_judge.replies import CallFailed, Completion, failure_of, read_reply

_MOST_REQUESTS = 50_000
_MOST_BYTES = 200_000_000
"""OpenAI's limits of a batch's file."""
_TRANSFER_SECONDS = 600.0
_PATH: Final = "/v1/chat/completions"
_NAME = "tuneproof_judge"
"""The key of our name in a batch's metadata."""
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})

_log = structlog.get_logger(__name__)


class Batches:
    """Hands in what is queued, and collects what has come.

    Args:
        lock: a file; of several judges with one cache only the one that holds it works here.
        poll: seconds between two looks.
    """

    def __init__(
        self,
        endpoint: OpenAIEndpoint,
        queue: Queue,
        lock: Path,
        poll: float,
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._endpoint, self._queue = endpoint, queue
        self._lock = lock.open("a")
        self._poll, self._sleep = poll, sleep
        self._waiting = 0
        self._has_learnt = False

    def close(self) -> None:
        """Lets another judge work."""
        self._lock.close()

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            await self._sleep(self._poll)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                await self.step()
                self._queue.trouble = ""
            except BlockingIOError:
                continue
            except (openai.APIError, CallFailed, WrongState, sqlite3.Error) as error:
                self._queue.trouble = str(error)
                _log.warning("no batch", url=self._endpoint.url, error=str(error))

    async def step(self) -> None:
        """Collects what has come. Hands in what waits, once nothing more was queued since the last
        step: a grade's repeats come together, and few large batches are done sooner than many.

        Raises:
            openai.APIError, CallFailed, WrongState: the endpoint fails; the queue stays as it is.
        """
        for name, batch_id in await asyncio.to_thread(self._queue.batches):
            await self._follow(name, batch_id)
        waiting, sent = await asyncio.to_thread(self._queue.counts)
        if waiting and waiting == self._waiting:
            await self._learn()
            while await self._hand_in():
                pass
            waiting, sent = await asyncio.to_thread(self._queue.counts)
        self._waiting = waiting
        for state, count in (("waiting", waiting), ("sent", sent)):
            BATCHED.labels(self._endpoint.model, state).set(count)

    async def _learn(self) -> None:
        """Asks one request directly: what the endpoint refuses is learnt in seconds, where each
        refusal in a batch may take a day."""
        first = None if self._has_learnt else await asyncio.to_thread(self._queue.first)
        if first is not None:
            key, asked = first
            result: Result
            try:
                result = await self._endpoint.complete(**asked, deadline=None)
            except CallFailed as failed:
                if failed.passing:
                    raise
                result = failed.failure
            await asyncio.to_thread(self._queue.arrive, {key: result})
        self._has_learnt = True

    async def _hand_in(self) -> bool:
        """Makes a batch of what waits; whether there was something."""
        name = uuid.uuid4().hex
        requests = await asyncio.to_thread(self._queue.claim, name, _MOST_REQUESTS)
        if not requests:
            return False
        lines = await asyncio.to_thread(self._lines_of, requests)
        if len(lines) < len(requests):
            await asyncio.to_thread(self._queue.drop, name, list(requests)[len(lines) :])
        # Where one of the two fails, the next step looks whether the batch was made nevertheless.
        client = self._endpoint.client
        content = (f"{name}.jsonl", b"".join(lines))
        file = await client.files.create(file=content, purpose="batch", timeout=_TRANSFER_SECONDS)
        batch = await client.batches.create(
            input_file_id=file.id,
            endpoint=_PATH,
            completion_window="24h",
            metadata={_NAME: name},
        )
        await asyncio.to_thread(self._queue.name, name, batch.id)
        _log.info("batch handed in", batch=batch.id, requests=len(lines))
        return True

    def _lines_of(self, requests: Mapping[str, Mapping[str, Any]]) -> list[bytes]:
        """As many as fit into a file."""
        lines: list[bytes] = []
        size = 0
        for key, asked in requests.items():
            line = self._line(key, asked)
            if lines and size + len(line) > _MOST_BYTES:
                break
            lines.append(line)
            size += len(line)
        return lines

    def _line(self, key: str, asked: Mapping[str, Any]) -> bytes:
        body = self._endpoint.dialect.said(parameters(**asked))
        body |= body.pop("extra_body", {})
        line = {
            "custom_id": key.removeprefix("sha256:"),
            "method": "POST",
            "url": _PATH,
            "body": {"model": self._endpoint.model, **body},
        }
        return json.dumps(line).encode() + b"\n"

    async def _follow(self, name: str, batch_id: str | None) -> None:
        if batch_id is None:
            batch_id = await self._find(name)
            if batch_id is None:
                await asyncio.to_thread(self._queue.drop, name)
                return
            await asyncio.to_thread(self._queue.name, name, batch_id)
        try:
            batch = await self._endpoint.client.batches.retrieve(batch_id)
            if batch.status not in _ENDED:
                return
            members = await asyncio.to_thread(self._queue.members, name)
            results: dict[str, Result] = {key: _missing(batch) for key in members}
            for file in (batch.output_file_id, batch.error_file_id):
                if file:
                    content = await self._endpoint.client.files.content(
                        file, timeout=_TRANSFER_SECONDS
                    )
                    results |= await asyncio.to_thread(self._results_of, content.content, members)
        except openai.NotFoundError as error:
            _log.warning("the endpoint no longer has a batch", batch=batch_id, error=str(error))
            await asyncio.to_thread(self._queue.drop, name)
            return
        await asyncio.to_thread(self._queue.arrive, results, name)
        arrived = [each for each in results.values() if isinstance(each, Completion)]
        used = Usage.total(each.usage for each in arrived)
        _log.info(
            "batch collected",
            batch=batch_id,
            status=batch.status,
            requests=len(members),
            completions=len(arrived),
            prompt_tokens=used.prompt_tokens,
            cached_tokens=used.cached_tokens,
            completion_tokens=used.completion_tokens,
        )

    async def _find(self, name: str) -> str | None:
        """The id of a batch that may have been made before the judge was killed."""
        async for batch in self._endpoint.client.batches.list(limit=100):
            if (batch.metadata or {}).get(_NAME) == name:
                return batch.id
        return None

    def _results_of(
        self, content: bytes, members: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Result]:
        return {
            key: self._result_of(line, members[key])
            for key, line in _lines(content)
            if key in members
        }

    def _result_of(self, line: Mapping[str, Any], asked: Mapping[str, Any]) -> Result:
        response = line.get("response") or {}
        status, body = response.get("status_code", 0), response.get("body")
        if status == 200:
            try:
                return self._read(json.dumps(body).encode(), asked)
            except CallFailed as failed:
                return Again(failed.failure)
        told = line.get("error") or (body or {}).get("error") or {}
        message = str(told.get("message") or told or "no answer")
        if status == 0:
            return Again(Failure(FailureKind.ENDPOINT, f"in a batch: {message}"))
        error = openai.APIStatusError(
            message,
            response=httpx2.Response(status, request=httpx2.Request("POST", self._endpoint.url)),
            body=told,
        )
        REQUESTS.labels(str(status)).inc()
        if self._endpoint.dialect.learns(error, parameters(**asked)):
            return Again(Failure(FailureKind.ENDPOINT, message))
        try:
            call = failure_of(error, url=self._endpoint.url, model=self._endpoint.model)
        except WrongState as broken:
            return Again(Failure(FailureKind.ENDPOINT, broken.message))
        return Again(call.failure) if call.passing else call.failure

    def _read(self, body: bytes, asked: Mapping[str, Any]) -> Completion:
        (completion,) = read_reply(body)
        count_answered(completion.usage)
        refused = self._endpoint.dialect.refused & parameters(**asked).keys()
        return replace(completion, refused=refused)


@asynccontextmanager
async def batched(
    endpoint: OpenAIEndpoint, cache: Cache, path: Path, *, poll: float, attempts: int
) -> AsyncIterator[BatchedEndpoint]:
    """An endpoint that is asked by batches, which run meanwhile.

    Args:
        path: the cache's file.
        poll: seconds between two looks.
        attempts: most batches for one request.
    """
    name = sha256_of_json([endpoint.url, endpoint.model])
    queue = Queue(path, name, attempts)
    lock = path.with_name(f"{path.name}.{name[-8:]}.lock")
    batches = Batches(endpoint, queue, lock, poll)
    running = asyncio.create_task(batches.run())
    try:
        yield BatchedEndpoint(endpoint, cache, queue)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        batches.close()
        queue.close()


def _missing(batch: Batch) -> Result:
    """What became of a request that a batch has no answer to."""
    said = "; ".join(one.message or "" for one in (batch.errors and batch.errors.data) or ())
    detail = f"the batch {batch.id} is {batch.status}{': ' if said else ''}{said}"
    # Who cancelled it does not want it handed in again.
    return Again(Failure(FailureKind.ENDPOINT, detail), last=batch.status == "cancelled")


def _lines(content: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for text in content.splitlines():
        if text.strip():
            line = json.loads(text)
            yield f"sha256:{line['custom_id']}", line
