"""A scripted OpenAI-compatible endpoint, which stands for a paid model: it answers by copying."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextlib.contextmanager
def scripted_endpoint(key: str) -> Iterator[str]:
    """Serves it on loopback; gives its base URL. Every tenth request is told to come back later.

    Args:
        key: the only one that it accepts.
    """
    asked = iter(range(1, 1_000_000))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.headers.get("Authorization") != f"Bearer {key}":
                self._reply(401, {"error": {"message": "wrong key"}})
            elif next(asked) % 10 == 0:
                self._reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.1"})
            else:
                self._reply(200, _completion(body))

        def _reply(
            self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None
        ) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    """The first sentence of the first passage."""
    prompt = body["messages"][-1]["content"]
    text = prompt.partition("[1] ")[2].partition(" .")[0].strip() + " ."
    message = {"role": "assistant", "content": text}
    used = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}
    return {
        "id": "scripted",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {**used, "total_tokens": sum(used.values())},
    }
