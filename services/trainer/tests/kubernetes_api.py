"""A part of Kubernetes' API for tests, at the wire: what a trainer asks of one namespace."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml


class Api:
    """Jobs, pods and events of a namespace, as Kubernetes' API gives them."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.refusal: tuple[int, str] | None = None
        self.asked: list[str] = []
        self.changes: dict[str, Any] = {}
        """Put into the Job that is made next."""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:  # noqa: PLR0911
        self.asked.append(f"{method} {path}")
        if self.refusal:
            code, message = self.refusal
            return code, {"message": message}
        kind, _, name = path.partition("?")[0].rpartition("/namespaces/x/")[2].partition("/")
        match method, kind:
            case "POST", _:
                if "dryRun" not in path:
                    self.jobs[body["metadata"]["name"]] = body | {"status": {}} | self.changes
                return 201, body
            case "GET", "jobs":
                return (200, self.jobs[name]) if name in self.jobs else (404, {"message": "gone"})
            case "DELETE", "jobs":
                self.jobs.pop(name, None)
                return 200, {}
            case "GET", "pods" if name:
                return 404, {"message": "gone"}
            case "GET", "pods":
                return 200, {"items": self.pods}
            case "GET", "events":
                (about,) = re.findall(r"involvedObject.name%3D([\w-]+)", path)
                chosen = [e for e in self.events if e["involvedObject"]["name"] == about]
                return 200, {"items": chosen}
        raise AssertionError(f"{method} {path}")


@contextmanager
def serve(folder: Path) -> Iterator[tuple[Api, str]]:
    """Serves an empty API; with the path of the kubeconfig that leads to its namespace `x`."""
    one = Api()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            given = self.rfile.read(int(self.headers.get("content-length") or 0))
            code, reply = one.answer(self.command, self.path, json.loads(given or "null"))
            sent = json.dumps(reply).encode()
            self.send_response(code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - as http.server names them

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    config = {
        "current-context": "c",
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "x"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    try:
        yield one, str(path)
    finally:
        server.shutdown()
        server.server_close()
