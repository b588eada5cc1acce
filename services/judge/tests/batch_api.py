"""A fake of OpenAI's batch API, which is paid and takes up to a day."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = tuple[int, dict[str, Any]]


def says(text: str, finish: str = "stop") -> Answer:
    choice = {"index": 0, "finish_reason": finish, "message": {"content": text}}
    usage = {"prompt_tokens": 100, "completion_tokens": 7}
    return 200, {"object": "chat.completion", "choices": [choice], "usage": usage}


def refuses(status: int, message: str, code: str | None = None) -> Answer:
    return status, {"error": {"message": message, "code": code}}


@dataclass
class BatchApi:
    """A fake of OpenAI's chat completions, files and batches, at the level of HTTP.

    Requests are answered when a test ends their batch: status
    200 into the output file, others into the error file, those that a batch leaves out into the
    error file as expired.
    """

    script: Callable[[dict[str, Any]], Answer] = lambda _: says("Reasons: same.\nScore: 4")
    direct: list[dict[str, Any]] = field(default_factory=list)
    paid: Counter[str] = field(default_factory=Counter)
    """Completions made in batches, by custom id."""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    making: int = 0
    """Requests for a batch that came: it is made, though nobody may hear of it."""
    pause: float = 0.0
    """Seconds that it takes to make a batch, and again to tell of it."""
    lose_answers: bool = False
    """Makes batches, and closes the connection instead of telling."""
    refuse_batches: tuple[int, str] | None = None
    url: str = ""

    def lines(self, batch: str) -> list[dict[str, Any]]:
        content = self.files[self.batches[batch]["input_file_id"]]
        return [json.loads(line) for line in content.splitlines()]

    def end(self, batch: str, status: str = "completed", *, answered: int | None = None) -> None:
        output, errors = [], []
        for number, line in enumerate(self.lines(batch)):
            told = {"id": f"r{number}", "custom_id": line["custom_id"]}
            if answered is not None and number >= answered:
                expired = {"code": "batch_expired", "message": "could not be executed in time"}
                errors.append({**told, "response": None, "error": expired})
                continue
            code, body = self.script(line["body"])
            response = {"status_code": code, "request_id": "q", "body": body}
            (output if code == 200 else errors).append({**told, "response": response})
            self.paid[line["custom_id"]] += code == 200
        found: dict[str, Any] = {"status": status}
        for name, lines in (("output_file_id", output), ("error_file_id", errors)):
            if lines:
                lines.reverse()  # Their order is not the requests'.
                content = "\n".join(map(json.dumps, lines))
                found[name] = f"{batch}-{name}"
                self.files[found[name]] = content.encode()
        self.batches[batch] |= found

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.direct.append(body)
        status, answer = self.script(body)
        return web.json_response(answer, status=status)

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form["purpose"] != "batch" or not form["file"].filename.endswith(".jsonl"):
            return web.json_response({"error": {"message": "bad file"}}, status=400)
        name = f"file-{len(self.files)}"
        self.files[name] = form["file"].file.read()
        whole = {"id": name, "object": "file", "bytes": 1, "created_at": 1, "purpose": "batch"}
        return web.json_response({**whole, "filename": "f", "status": "processed"})

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.refuse_batches:
            status, message = self.refuse_batches
            return web.json_response({"error": {"message": message}}, status=status)
        assert body["endpoint"] == "/v1/chat/completions"
        assert body["input_file_id"] in self.files
        self.making += 1
        await asyncio.sleep(self.pause)
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {
            **body, "id": name, "object": "batch", "created_at": 1, "status": "validating",
        }  # fmt: skip
        if self.lose_answers:
            assert request.transport is not None
            request.transport.abort()
        await asyncio.sleep(self.pause)
        return web.json_response(self.batches[name])

    async def retrieve(self, request: web.Request) -> web.Response:
        return web.json_response(self.batches[request.match_info["id"]])

    async def list(self, _: web.Request) -> web.Response:
        found = {"object": "list", "data": [*self.batches.values()], "has_more": False}
        return web.json_response(found)

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["id"]])


@asynccontextmanager
async def batch_api() -> AsyncIterator[BatchApi]:
    """Serves it on loopback."""
    found = BatchApi()
    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/chat/completions", found.chat),
            web.post("/v1/files", found.upload),
            web.get("/v1/files/{id}/content", found.content),
            web.post("/v1/batches", found.create),
            web.get("/v1/batches", found.list),
            web.get("/v1/batches/{id}", found.retrieve),
            web.get("/v1/models", found.models),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield found
    finally:
        await runner.cleanup()
