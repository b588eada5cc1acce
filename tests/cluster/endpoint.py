"""The pool's OpenAI port under mutual TLS, for pods: answers every judgement alike.

What a real pool answers is another test's subject.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from tuneproof.servicekit.tls import ServerTls

ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "base",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Reasons: same.\nScore: 4"},
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


async def models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": []})


async def completion(_: web.Request) -> web.Response:
    return web.json_response(ANSWER)


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", completion)
    tls = ServerTls(Path("/etc/tuneproof-tls"), client_certificates=True)
    web.run_app(app, port=8000, ssl_context=tls.context())
