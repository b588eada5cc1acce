"""The services that a study uses: reached when they are first needed, not before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, cast

from tuneproof.local.supervisor import Progress
from tuneproof.rubrics import Rubric, RubricShelf
from tuneproof.sdk import (
    Endpoints,
    GeneratorClient,
    JudgeClient,
    PoolInfo,
    RetrieverClient,
    TrainerClient,
)
from tuneproof.sdk.client import Client
from tuneproof.sdk.endpoints import SERVICES
from tuneproof.servicekit.client import is_reachable
from tuneproof.servicekit.errors import InvalidInput, Unavailable, WrongState
from tuneproof.servicekit.reloading import read_secret
from tuneproof.study.design.identity import Identities
from tuneproof.study.design.sources import BaseSource, Sources, model_files, wrong_base

C = TypeVar("C", bound=Client)

_PATIENCE = 180.0
"""A generator with a large model needs minutes to start."""
_LOOK = 2.0


class ServiceSource(Protocol):
    """Where services come from."""

    @property
    def one_at_a_time(self) -> bool:
        """Whether it serves one base after the other; else each has a generator of its own."""

    async def start(self, model: str = "") -> Endpoints:
        """Gives the addresses, once the services are ready.

        Args:
            model: the base that generator and trainer serve; empty: whichever they do.
        """

    async def restart(self, model: str = "") -> Endpoints | None:
        """Restarts them with the current files; None for services that a study must not restart."""

    async def close(self) -> None:
        """Ends what `start` started."""


class GivenServices:
    """Services that somebody else starts and ends.

    Args:
        patience: seconds for which a lost service may be away.
        bases: with their addresses, where the study file names them.
    """

    one_at_a_time = False

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        progress: Progress,
        patience: float = _PATIENCE,
        bases: Sequence[BaseSource] = (),
    ) -> None:
        self._endpoints = endpoints
        self._progress = progress
        self._patience = patience
        self._bases = {base.name: base for base in bases}
        self._started: set[str] = set()

    async def start(self, model: str = "") -> Endpoints:
        """The given addresses; from the second call on, once all services answer again.

        Raises:
            Unavailable: one did not come back in time; the message says what to do.
        """
        endpoints = self._endpoints
        if base := self._bases.get(model):
            endpoints = replace(
                endpoints,
                generator=base.generator or endpoints.generator,
                trainer=base.trainer or endpoints.trainer,
            )
        if model in self._started:
            waiting = (self._wait_for(name, endpoints) for name in SERVICES)
            await asyncio.gather(*waiting)
        self._started.add(model)
        return endpoints

    async def _wait_for(self, name: str, endpoints: Endpoints) -> None:
        target, tls = getattr(endpoints, name), endpoints.tls_of(name)
        if not target or await is_reachable(target, timeout=_LOOK, tls=tls):
            return
        self._progress(name, f"away; waiting up to {self._patience:.0f} s for {target}")
        if not await is_reachable(target, timeout=self._patience, tls=tls):
            raise Unavailable(
                f"the {name} at {target} did not come back within {self._patience:.0f} s: start it"
                " again, then give the same command; what is done is kept"
            )

    async def restart(self, model: str = "") -> Endpoints | None:  # noqa: ARG002 - the Protocol's
        """Restarts nothing."""
        return None

    async def close(self) -> None:
        """Nothing was started."""


class Services:
    """Clients of the four services, opened at first use. Several steps may use them at once.

    Args:
        sources: the files behind the services, where they are known; a service that started before
            these files changed is restarted, or refused.
        model: what the study calls the base that generator and trainer serve; empty: its only one.
    """

    def __init__(
        self,
        source: ServiceSource,
        *,
        identities: Identities,
        sources: Sources,
        model: str = "",
    ) -> None:
        self._source = source
        self._identities = identities
        self._sources = sources
        self._model = model
        self._ends_source = True
        self._stack = AsyncExitStack()
        self._endpoints: Endpoints | None = None
        self._clients: dict[type[Any], Any] = {}
        self._changing = asyncio.Lock()
        self.pool: PoolInfo | None = None
        """What the generator serves, once a step has asked it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self._stack.aclose()
        if self._ends_source:
            await self._source.close()

    @property
    def one_at_a_time(self) -> bool:
        """Whether only one base is served at a time."""
        return self._source.one_at_a_time

    def of(self, model: str) -> Services:
        """The same services with the generator and the trainer of a base; the end of its context
        closes its connections, and ends no service.

        Args:
            model: what the study calls the base.
        """
        found = Services(
            self._source, identities=self._identities, sources=self._sources, model=model
        )
        found._ends_source = False
        return found

    async def start(self) -> None:
        """Makes sure that the services run, where the study starts them."""
        async with self._changing:
            await self._start()

    async def retriever(self) -> RetrieverClient:
        """The retriever."""
        async with self._changing:
            return await self._client(RetrieverClient)

    async def trainer(self) -> TrainerClient:
        """The trainer; the generator tells which base model it has."""
        async with self._changing:
            await self._checked_generator()
            return await self._client(TrainerClient)

    async def generator(self) -> GeneratorClient:
        """The generator, if it serves the model that the study means.

        Raises:
            WrongState: it serves another one.
        """
        async with self._changing:
            return await self._checked_generator()

    async def _checked_generator(self) -> GeneratorClient:
        client = await self._client(GeneratorClient)
        if self.pool is None:
            pool = await client.pool()
            if problem := self._wrong_model(pool):
                await self._start_anew(problem)
                client = await self._client(GeneratorClient)
                pool = await client.pool()
            self.pool = pool
        return client

    @property
    def token(self) -> str | None:
        """The bearer token of a call that begins now."""
        token = self._endpoints.token if self._endpoints is not None else None
        return read_secret(token, "a bearer token") if isinstance(token, Path) else token

    async def openai_url(self) -> str:
        """Base URL of the generator's OpenAI API.

        Raises:
            InvalidInput: the generator was started elsewhere, so that nobody told it.
        """
        await self.generator()
        url = self._endpoints.openai if self._endpoints is not None else ""
        if not url:
            raise InvalidInput(
                "the address of the generator's OpenAI API is not known: name it in"
                " `forgetting: {url: http://host:port/v1}`",
                field="forgetting.url",
            )
        return url

    async def judge(self) -> JudgeClient:
        """The judge, if it has the study's rubrics.

        Raises:
            WrongState: it has others under their names, or lacks one.
        """
        async with self._changing:
            return await self._checked_judge()

    async def _checked_judge(self) -> JudgeClient:
        first = JudgeClient not in self._clients
        client = await self._client(JudgeClient)
        if first and self._identities.rubrics:
            problem = _wrong_rubrics(await client.rubrics(), self._identities, self._sources)
            if problem:
                await self._start_anew(problem)
                client = await self._client(JudgeClient)
        return client

    async def recover(self) -> None:
        """Connects again after a service was lost; restarts it where the study started it.

        The other steps go on with the clients that they have.
        """
        async with self._changing:
            self._forget()
            self._endpoints = await self._source.start(self._model)

    async def _start(self) -> None:
        if self._endpoints is None:
            self._endpoints = await self._source.start(self._model)

    def _wrong_model(self, pool: PoolInfo) -> str:
        base = self._sources.of(self._model)
        if not self._model:
            problem = _wrong_model(pool, self._identities.model_name)
        else:
            problem = wrong_base(pool, base)
        # Of other machines' services the clock tells nothing about files here.
        here = self._endpoints is not None and "generator" in self._endpoints.health
        return problem or (_changed_since(pool, base) if here else "")

    async def _start_anew(self, problem: str) -> None:
        self._forget()
        endpoints = await self._source.restart(self._model)
        if endpoints is None:
            raise WrongState(problem)
        self._endpoints = endpoints

    async def _client(self, kind: type[C]) -> C:
        if kind not in self._clients:
            await self._start()
            endpoints = cast(Endpoints, self._endpoints)
            opened = kind.of(endpoints)
            self._clients[kind] = await self._stack.enter_async_context(opened)
        found: C = self._clients[kind]
        return found

    def _forget(self) -> None:
        """New clients at the next use; the old ones are closed at the end, for steps that use
        them."""
        self._clients, self.pool = {}, None


def _wrong_model(pool: PoolInfo, served: str) -> str:
    """Why the generator's model is not the study's only one; empty where it is.

    Args:
        served: the name under which the study means it to be served.
    """
    if pool.base_model == served:
        return ""
    return (
        f"the generator serves {pool.base_model!r}, but the study means {served!r}: start the"
        f" generator with that model, or run the study with --model {pool.base_model}"
    )


def _changed_since(pool: PoolInfo, base: BaseSource) -> str:
    """Whether the files of a base changed after its generator started, in words."""
    folder = Path(base.model) if base.model else None
    if folder is None or not folder.is_dir() or pool.start_time is None:
        return ""
    changed = max(path.stat().st_mtime for path in model_files(folder))
    if datetime.fromtimestamp(changed, UTC) > pool.start_time.astimezone(UTC):
        return (
            f"the files in {folder} changed after the generator started:"
            " end the services (`tuneproof down`) and start them again"
        )
    return ""


def _wrong_rubrics(known: list[Rubric], identities: Identities, sources: Sources) -> str:
    """Why the judge's rubrics are not the study's; empty when they are."""
    by_id = {rubric.id: rubric for rubric in known}
    lacking = [rubric.id for rubric in identities.rubrics if rubric.id not in by_id]
    if lacking:
        return (
            f"the judge lacks the rubric {', '.join(lacking)}; it has {', '.join(sorted(by_id))}:"
            " start it with --rubrics FOLDER"
        )
    files = {rubric.id: rubric for rubric in RubricShelf.load(sources.rubrics)}
    for mine in identities.rubrics:
        if by_id[mine.id].digest != files.get(mine.id, mine).digest:
            where = f"in {sources.rubrics}" if sources.rubrics else "that comes with tuneproof"
            return (
                f"the judge's rubric {mine.id} is not the one {where}: it changed after the judge"
                " started; end the services (`tuneproof down`) and start them again"
            )
    return ""
