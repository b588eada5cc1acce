"""A cluster's API as it is on the wire, for tests: lists of objects, and ports that it forwards.

It knows no rules of its own: a test says which objects are there, and what is refused.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import WSMsgType, web

Object = dict[str, Any]


class FakeCluster:
    """What the API answers.

    Args:
        folder: for the kubeconfig, whose only context is `here`.
    """

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self.objects: dict[str, list[Object]] = {}
        """By the plural of their kind."""
        self.user = "guest"
        self.refused: set[str] = set()
        """Kinds that the user must not see; `forward`: ports."""
        self.behind: dict[str, str] = {}
        """The address that a pod's port leads to, by the pod's name."""
        self.forwarded: Counter[str] = Counter()
        """Connections made, by pod."""
        self.tunnels: list[web.WebSocketResponse] = []
        self.loop = asyncio.new_event_loop()

    def cut(self) -> None:
        """Ends the connections that it forwards, as the end of their pods does."""
        asyncio.run_coroutine_threadsafe(self._cut(), self.loop).result(10)

    async def _cut(self) -> None:
        for tunnel in self.tunnels:
            await tunnel.close()

    def add(self, kind: str, name: str, **more: Any) -> Object:
        """Makes an object."""
        labels = more.pop("labels", {})
        made = {"metadata": {"name": name, "labels": labels}, **more}
        self.objects.setdefault(kind, []).append(made)
        return made

    def remove(self, kind: str, name: str) -> None:
        kept = [each for each in self.objects[kind] if each["metadata"]["name"] != name]
        self.objects[kind] = kept

    def service(self, name: str, role: str, *, pods: int = 1, pool: str = "") -> None:
        """A service of the manifests with Ready pods."""
        labels = {"app.kubernetes.io/name": role}
        labels |= {"app.kubernetes.io/instance": pool} if pool else {}
        ports = [{"name": "grpc", "port": 50051}]
        self.add("services", name, spec={"selector": labels, "ports": ports})
        for number in range(pods):
            self.pod(f"{name}-{number}", role, labels)

    def pod(self, name: str, role: str, labels: dict[str, str], **status: Any) -> Object:
        """A pod, Ready unless its status says otherwise."""
        numbers = {"grpc": 50051, "openai": 8000}
        ports = [{"name": name, "containerPort": port} for name, port in numbers.items()]
        container = {"name": role, "image": f"tuneproof/{role}:0.1.0", "ports": ports}
        status = status or {"conditions": [{"type": "Ready", "status": "True"}]}
        spec = {"containers": [container], "volumes": []}
        return self.add("pods", name, labels=labels, spec=spec, status=status)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{api:apis?}/{group:.*}/pods/{name}/portforward", self._forward)
        app.router.add_post("/apis/authorization.k8s.io/v1/{_}", self._may)
        app.router.add_post("/apis/authentication.k8s.io/v1/{_}", self._who)
        app.router.add_post("/{path:.*}", self._make)
        app.router.add_delete("/{path:.*}", self._delete)
        app.router.add_get("/version", self._version)
        app.router.add_get("/{path:.*}", self._get)
        return app

    async def _get(self, request: web.Request) -> web.Response:
        path = request.match_info["path"].rpartition("namespaces/")[2]
        _, kind, name, *_ = f"{path}//".split("/")
        if kind in self.refused:
            message = f'{kind} is forbidden: User "guest" cannot list resource "{kind}"'
            return web.json_response({"message": message}, status=403)
        found = self.objects.get(kind, [])
        if name:
            one = next((each for each in found if each["metadata"]["name"] == name), None)
            status = 200 if one else 404
            return web.json_response(one or {"message": f"{name} not found"}, status=status)
        asked = request.query.get("labelSelector", "")
        selector = [] if " in " in asked else asked.split(",")
        wanted = dict(pair.split("=") for pair in selector if "=" in pair)
        labelled = [label for label in selector if label and "=" not in label]
        chosen = [
            each
            for each in found
            if wanted.items() <= each["metadata"]["labels"].items()
            and all(label in each["metadata"]["labels"] for label in labelled)
        ]
        return web.json_response({"items": chosen})

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"gitVersion": "v1.36.3"})

    async def _make(self, request: web.Request) -> web.Response:
        body = await request.json()
        made = self.objects.setdefault(request.path.rpartition("/")[2], [])
        if any(each["metadata"]["name"] == body["metadata"]["name"] for each in made):
            return web.json_response({"message": "already exists"}, status=409)
        body["metadata"]["creationTimestamp"] = "2026-11-28T12:00:00Z"
        made.append(body | {"status": {}})
        return web.json_response(body, status=201)

    async def _delete(self, request: web.Request) -> web.Response:
        *_, kind, name = request.path.split("/")
        if not any(each["metadata"]["name"] == name for each in self.objects.get(kind, ())):
            return web.json_response({"message": f"{name} not found"}, status=404)
        self.remove(kind, name)
        return web.json_response({})

    async def _who(self, request: web.Request) -> web.Response:
        return web.json_response({"status": {"userInfo": {"username": self.user}}}, status=201)

    async def _may(self, request: web.Request) -> web.Response:
        asked = (await request.json())["spec"]["resourceAttributes"]
        allowed = not (asked.get("subresource") == "portforward" and "forward" in self.refused)
        return web.json_response({"status": {"allowed": allowed}}, status=201)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        pod, port = request.match_info["name"], int(request.query["ports"])
        host, _, number = self.behind[pod].partition(":")
        reader, writer = await asyncio.open_connection(host, int(number))
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        self.forwarded[pod] += 1
        self.tunnels.append(socket)
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))

        async def back() -> None:
            while data := await reader.read(2**16):
                await socket.send_bytes(b"\0" + data)
            await socket.close()

        task = asyncio.ensure_future(back())
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                writer.write(message.data[1:])
        task.cancel()
        writer.close()
        return socket


@contextmanager
def serving(cluster: FakeCluster) -> Iterator[FakeCluster]:
    """Serves it in a thread, and writes its kubeconfig."""
    thread = threading.Thread(target=cluster.loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(cluster.app())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    runner, port = asyncio.run_coroutine_threadsafe(start(), cluster.loop).result(10)
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    cluster.kubeconfig.write_text(yaml.safe_dump(content))
    try:
        yield cluster
    finally:
        cluster.cut()
        asyncio.run_coroutine_threadsafe(runner.cleanup(), cluster.loop).result(10)
        cluster.loop.call_soon_threadsafe(cluster.loop.stop)
        thread.join()
