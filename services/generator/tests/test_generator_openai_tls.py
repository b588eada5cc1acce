"""The OpenAI API's server as the door sets it up: certificates, tokens, and their rotation."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trustme
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from tuneproof.servicekit.auth import TokensFile
from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.http_server import listen, serving, url_of
from tuneproof.servicekit.server import Guard
from tuneproof.servicekit.testing import MountedSecret
from tuneproof.servicekit.testing import certificate_files as files
from tuneproof.servicekit.tls import ClientTls, ServerTls
from tuneproof_generator.doors.tokens import guarded

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]

USE, NEXT = "u" * 20, "n" * 20


async def answer(request) -> StreamingResponse:
    async def pieces():
        for number in range(3):
            yield f"data: {number}\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(pieces())


@asynccontextmanager
async def door(guard: Guard):
    with listen("127.0.0.1:0", "openai_bind") as socket:
        app = Starlette(routes=[Route("/v1/answer", answer)])
        guarded(app, guard)
        async with serving(app, socket, guard.tls, keep_alive_seconds=5, drain_seconds=1):
            yield url_of(socket, secure=guard.tls is not None) + "/v1/answer"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_without_a_guard_it_is_plaintext_and_open() -> None:
    async with door(Guard()) as url, httpx.AsyncClient() as client:
        assert url.startswith("http://")
        assert (await client.get(url)).text.count("data") == 3


async def test_tokens_are_those_of_grpc_and_follow_the_file(tmp_path: Path) -> None:
    secret = MountedSecret(tmp_path / "secret", {"tokens": f"use {USE}".encode()})
    tokens = TokensFile(secret.folder / "tokens")
    async with door(Guard(tokens)) as url, httpx.AsyncClient() as client:
        for headers in ({}, bearer("nobody's"), {"authorization": f"Basic {USE}"}):
            refused = await client.get(url, headers=headers)
            assert refused.status_code == httpx.codes.UNAUTHORIZED
            assert "bearer token" in refused.json()["error"]["message"]
        assert (await client.get(url, headers=bearer(USE))).is_success
        secret.change({"tokens": f"use {NEXT}".encode()})
        assert (await client.get(url, headers=bearer(NEXT))).is_success
        refused = await client.get(url, headers=bearer(USE))
        assert refused.status_code == httpx.codes.UNAUTHORIZED


async def test_who_cannot_be_asked_is_no_refusal() -> None:
    class Away:
        async def check(self, authorization: str, *, needs: str) -> str:
            raise Unavailable("Kubernetes does not answer")

    async with door(Guard(Away())) as url, httpx.AsyncClient() as client:
        assert (await client.get(url)).status_code == httpx.codes.SERVICE_UNAVAILABLE


async def test_certificates_are_rotated_under_load_and_no_request_fails(tmp_path: Path) -> None:
    ca, new = trustme.CA(), trustme.CA()
    server = MountedSecret(tmp_path / "server", files(ca, "127.0.0.1"))
    mine = MountedSecret(tmp_path / "mine", files(ca, "judge"))
    left = MountedSecret(tmp_path / "left", files(ca, "judge"))
    context = ClientTls(mine.folder).context()
    both = ca.cert_pem.bytes() + new.cert_pem.bytes()
    ended = asyncio.Event()
    done = 0

    async def load(url: str) -> None:
        nonlocal done
        while not ended.is_set():
            # A client a request: each makes a handshake.
            async with httpx.AsyncClient(verify=context) as client:
                assert (await client.get(url)).text.count("data") == 3
            done += 1

    async def more() -> None:
        until = done + 20
        while done < until:
            await asyncio.sleep(0.02)

    async with door(Guard(tls=ServerTls(server.folder, client_certificates=True))) as url:
        assert url.startswith("https://")
        loads = [asyncio.create_task(load(url)) for _ in range(4)]
        await more()
        for authority in (ca, new):
            server.change(files(authority, "127.0.0.1") | {"ca.crt": both})
            mine.change(files(authority, "judge") | {"ca.crt": both})
            await more()
        server.change(files(new, "127.0.0.1"))
        await more()
        ended.set()
        await asyncio.gather(*loads)
        left.change(files(ca, "judge") | {"ca.crt": both})
        trusting = {"ca.crt": both}
        nobody = MountedSecret(tmp_path / "nobody", trusting)
        for folder in (left.folder, nobody.folder):
            async with httpx.AsyncClient(verify=ClientTls(folder).context()) as client:
                with pytest.raises(httpx.TransportError):
                    await client.get(url)
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.TransportError):
                await client.get(url.replace("https://", "http://"))
