"""An OpenAI-compatible endpoint whose failures a test writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Endpoint:
    """What a test sets, and reads."""

    failures: list[tuple[int, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    """Answers of the next requests: status, error, headers."""
    refuses: set[str] = field(default_factory=set)
    """Settings that it does not take."""
    key: str = ""
    """The only one that it accepts; empty: any."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        if self.key and request.headers["Authorization"] != f"Bearer {self.key}":
            return _error(401, {"message": "wrong key"})
        if self.failures:
            status, error, headers = self.failures.pop(0)
            return _error(status, error, headers)
        for name in sorted(self.refuses & set(body)):
            said = f"Unsupported parameter: '{name}' is not supported with this model."
            return _error(400, {"message": said, "param": name, "code": "unsupported_parameter"})
        prompt = body["messages"][-1]["content"]
        sentence = prompt.partition("[1] ")[2].split(".")[0]
        message = {"role": "assistant", "content": f"I say: {sentence}."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        return web.json_response(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 0,
                "model": f"{body['model']}-2026",
                "choices": [choice],
                "usage": usage,
            }
        )


@asynccontextmanager
async def api_endpoint(**settings: Any) -> AsyncIterator[Endpoint]:
    """Serves it on loopback."""
    endpoint = Endpoint(**settings)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.chat)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    endpoint.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield endpoint
    finally:
        await runner.cleanup()


def _error(
    status: int, error: dict[str, Any], headers: dict[str, str] | None = None
) -> web.Response:
    return web.json_response({"error": error}, status=status, headers=headers)
