"""The connection to a Weaviate server, and what its failures mean.

weaviate-client 4.23 needs some care:
- Its checks at the start ask PyPI for its newest version, so they are left out.
- `is_ready` and `is_live` print what failed, so the server's own page is asked.
- It repeats calls that find the server away, an import too, with pauses of up to 32 s. So each
  call has a time limit here, and an outage during an import is noticed by watching.
- It wraps gRPC's errors and hides their codes, which are found in the chain of causes.
- It has no option for the authorities that its HTTP calls trust, so its HTTP client is made here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import structlog
import weaviate
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.config import GrpcConfig
from weaviate.exceptions import WeaviateBaseError

from tuneproof.servicekit.errors import (
    InvalidInput,
    NotFound,
    Overloaded,
    TuneproofError,
    Unavailable,
    WrongState,
)
from tuneproof_retriever.stores.weaviate_options import Server

_WATCH_SECONDS = 0.5
_CONNECT_SECONDS = 5.0
_GLANCE_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2000)]
_DEFAULT_GRPC_PORT = 50051
_TOO_MANY = "429 Too many requests"
"""What Weaviate 1.39 answers, with the code UNKNOWN, beyond MAXIMUM_CONCURRENT_GET_REQUESTS."""
_log = structlog.get_logger(__name__)


class Connection:
    """A connection that is made when it is first needed, and again after a failure."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.outages = 0
        self._away = False
        self._opening = asyncio.Lock()
        self._client: Any = None
        self._trusted = _trusting(server.ca)
        self._page = self._http_client()

    @asynccontextmanager
    async def calling(self, corpus: str, *, writing: bool = False) -> AsyncIterator[Any]:
        """The client, for calls about a corpus.

        Args:
            writing: whether the calls get the time limit of a write, not that of a search.

        Raises:
            NotFound: the server does not know the collection.
            Overloaded: it takes no more calls now.
            WrongState: it refuses the API key.
            Unavailable: it does not answer in time, or fails.
        """
        limit = self.server.write_seconds if writing else self.server.search_seconds
        try:
            async with asyncio.timeout(limit):
                # While it is away, one short question spares callers the client's own pauses.
                if self._away and not await self._is_up(_GLANCE_SECONDS):
                    raise self._not_ready()
                yield await self._opened()
        except TuneproofError:
            raise
        except TimeoutError as error:
            raise Unavailable(
                f"Weaviate at {self.server.url} did not answer within {limit:g} s"
            ) from error
        except (WeaviateBaseError, httpx.HTTPError) as error:
            raise self._meaning(error, corpus) from error

    async def check(self) -> None:
        """Raises `Unavailable` while the server does not answer on both of its ports."""
        if not await self._is_up():
            raise self._not_ready()
        with suppress(NotFound):
            async with self.calling("") as client:
                # No collection has this name: the answer that it is unknown shows that gRPC works.
                await client.collections.use("Tuneproof").query.fetch_objects(limit=1)

    async def watch(self) -> None:
        """Counts outages, until cancelled. Whoever imports asks whether there was one."""
        blind = False
        while True:
            try:
                away = not await self._is_up()
            except Exception:  # noqa: BLE001 - logged, and a watch that ends tells nobody
                # Whether it is up is unknown, and an import in this time needs a whole proof.
                if not blind:
                    self.outages += 1
                    _log.exception("Weaviate cannot be watched", url=self.server.url)
                blind = True
            else:
                self.outages += away and not self._away
                self._away, blind = away, False
            await asyncio.sleep(_WATCH_SECONDS)

    async def close(self) -> None:
        """Closes the connection."""
        await self._page.aclose()
        if self._client is not None:
            await self._client.close()

    def _not_ready(self) -> Unavailable:
        return Unavailable(f"Weaviate at {self.server.url} is not ready")

    async def _is_up(self, seconds: float = _CONNECT_SECONDS) -> bool:
        url = f"{self.server.url}/v1/.well-known/ready"
        try:
            page = await self._page.get(url, timeout=seconds)
        except httpx.HTTPError:
            return False
        return page.status_code == httpx.codes.OK

    async def _opened(self) -> Any:
        async with self._opening:
            if self._client is None:
                client = self._make()
                try:
                    await client.connect()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
        return self._client

    def _make(self) -> Any:
        server = self.server
        url = urlsplit(server.url)
        secure = url.scheme == "https"
        host, _, port = server.grpc.rpartition(":")
        client = weaviate.use_async_with_custom(
            http_host=url.hostname or "",
            http_port=url.port or (443 if secure else 80),
            http_secure=secure,
            grpc_host=host or url.hostname or "",
            grpc_port=int(port or _DEFAULT_GRPC_PORT),
            grpc_secure=secure,
            auth_credentials=Auth.api_key(server.api_key) if server.api_key else None,
            additional_config=AdditionalConfig(
                timeout=Timeout(
                    init=_CONNECT_SECONDS, query=server.write_seconds, insert=server.write_seconds
                ),
                grpc_config=GrpcConfig(
                    channel_options=_CHANNEL,
                    credentials=grpc.ssl_channel_credentials(server.ca.encode() or None),
                ),
            ),
            skip_init_checks=True,
        )
        connection = client._connection  # noqa: SLF001 - see the head of the module
        connection._make_client = lambda _: self._http_client(connection._headers)  # noqa: SLF001
        return client

    def _http_client(self, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(headers=headers, verify=self._trusted, trust_env=False)

    def _meaning(self, error: Exception, corpus: str) -> TuneproofError:
        text = _first_line(error)
        codes = set(_codes(error))
        if "404" in codes or "could not find class" in text:
            return NotFound(f"there is no corpus {corpus!r}", corpus=corpus)
        if codes & {"429", "RESOURCE_EXHAUSTED"} or _TOO_MANY in text:
            return Overloaded(
                f"Weaviate takes no more calls now: {text}", retry_after=_asked_by(error)
            )
        if codes & {"401", "403", "UNAUTHENTICATED", "PERMISSION_DENIED"}:
            return WrongState(
                f"Weaviate at {self.server.url} refuses this retriever's API key; set"
                " weaviate_api_key or weaviate_api_key_file to one that may read and write, and"
                " restart the retriever",
                reason="ENDPOINT_KEY_REFUSED",
            )
        return Unavailable(f"Weaviate at {self.server.url} failed: {text}")


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Connection]:
    """A connection, watched for as long as it is used."""
    connection = Connection(server)
    watching = asyncio.create_task(connection.watch())
    try:
        yield connection
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await connection.close()


def _trusting(ca: str) -> ssl.SSLContext | bool:
    if not ca:
        return True
    try:
        return ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(
            f"weaviate_ca_file holds no certificate in PEM ({error})", field="weaviate_ca_file"
        ) from None


def _chain(error: BaseException | None) -> Iterator[Any]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _codes(error: BaseException) -> Iterator[str]:
    """HTTP's and gRPC's codes of an error and its causes, as text."""
    for each in _chain(error):
        if isinstance(each, WeaviateBaseError) and hasattr(each, "status_code"):
            yield str(each.status_code)
        elif callable(code := getattr(each, "code", None)):
            yield str(code().name)


def _asked_by(error: BaseException) -> float:
    """Seconds that the server asks its callers to wait."""
    for each in _chain(error):
        if callable(trailers := getattr(each, "trailing_metadata", None)):
            given = {str(key): value for key, value in trailers() or ()}
            with suppress(KeyError, ValueError):
                return float(given["retry-after"])
            with suppress(KeyError, ValueError):
                return max(0.0, float(given["grpc-retry-pushback-ms"]) / 1000)
    return _RETRY_SECONDS


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
