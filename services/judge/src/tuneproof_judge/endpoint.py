"""Asking a judge model at an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2
import openai
from opentelemetry.trace import SpanKind

from tuneproof.servicekit.errors import TuneproofError, Unavailable
from tuneproof.servicekit.http import without_credentials
from tuneproof.servicekit.retries import Retries, Sleep
from tuneproof.servicekit.tracing import headers, span
from tuneproof_judge.dialect import Dialect
from tuneproof_judge.grade import Usage
from tuneproof_judge.metrics import IN_FLIGHT, REQUESTS, count_answered
from tuneproof_judge.pacing import Pace, Slot
from tuneproof_judge.replies import (
    CallFailed,
    ChoicesRefused,
    Completion,
    failure_of,
    read_reply,
    timed_out,
)

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 20.0
_LONGEST_RETRY_AFTER_SECONDS = 120.0
_PROBE_SECONDS = 5.0
_ALTERNATIVES = 20
"""The most that OpenAI allows, and vLLM by default."""


class ChatEndpoint(Protocol):
    """A judge model."""

    @property
    def url(self) -> str:
        """Its base URL, without credentials."""

    @property
    def model(self) -> str:
        """Its name there."""

    @property
    def structured(self) -> bool:
        """Whether forms are asked for by their JSON schema."""

    async def complete(
        self,
        prompt: str,
        *,
        seed: int,
        temperature: float,
        max_tokens: int,
        deadline: float | None,
        probabilities: bool = False,
        begun: str = "",
        form: Mapping[str, Any] | None = None,
    ) -> Completion:
        """One sampled completion of one user message.

        Args:
            deadline: the event loop's time after which no further attempt begins.
            probabilities: whether to tell the most probable alternatives of each token.
            begun: how the completion begins; it goes on from there, where the endpoint can.
            form: the JSON schema of the completion, where the endpoint is asked for one.

        Raises:
            CallFailed: after all attempts that may help.
            WrongState: the set-up is broken.
        """


@dataclass(frozen=True)
class EndpointLimits:
    """How much the judge may ask of an endpoint."""

    concurrency: int
    """Completions in flight, over all calls."""
    request_timeout: float
    """Seconds for one HTTP request, body included."""
    max_attempts: int
    """Most HTTP requests for one completion."""
    structured: bool = False
    """Asks for completions by their JSON schema (`response_format`), until it is refused."""


class OpenAIEndpoint:
    """A `ChatEndpoint` by the openai client.

    Args:
        api_key: the key, or what gives it for each request; empty for an endpoint without one.
        context: for an endpoint with certificates that the machine does not know.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | Callable[[], Awaitable[str]],
        limits: EndpointLimits,
        *,
        context: ssl.SSLContext | None = None,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._model = model
        self._limits = limits
        self._retries = Retries(
            first=_FIRST_PAUSE_SECONDS,
            longest=_LONGEST_PAUSE_SECONDS,
            jitter=0.5,
            attempts=limits.max_attempts,
            longest_asked=_LONGEST_RETRY_AFTER_SECONDS,
            passing=lambda error: isinstance(error, CallFailed) and error.passing,
        )
        self._sleep = sleep
        self._clock = clock
        self._pace = Pace(limits.concurrency, model)
        self._dialect = Dialect(self.url, model)
        self._probed: tuple[float, TuneproofError] | None = None
        self._has_answered = False
        # The client insists on a key; an endpoint without one ignores it. We retry ourselves,
        # because the client knows neither the call's deadline nor our limit of requests in flight.
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=api_key or "none",
            max_retries=0,
            timeout=limits.request_timeout,
            http_client=openai.DefaultAsyncHttpxClient(verify=context) if context else None,
        )

    @property
    def url(self) -> str:
        return without_credentials(self._url)

    @property
    def model(self) -> str:
        return self._model

    @property
    def structured(self) -> bool:
        return self._limits.structured

    @property
    def client(self) -> openai.AsyncOpenAI:
        """For what is no single completion, as a batch; it repeats nothing by itself."""
        return self._client

    @property
    def dialect(self) -> Dialect:
        """What the endpoint takes, as far as it is known."""
        return self._dialect

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def complete(
        self,
        prompt: str,
        *,
        seed: int,
        temperature: float,
        max_tokens: int,
        deadline: float | None,
        probabilities: bool = False,
        begun: str = "",
        form: Mapping[str, Any] | None = None,
    ) -> Completion:
        asked = parameters(
            prompt,
            seed=seed,
            temperature=temperature,
            max_tokens=max_tokens,
            probabilities=probabilities,
            begun=begun,
            form=form,
        )
        return (await self.choices(asked, 1, deadline))[0]

    async def choices(
        self, asked: Mapping[str, Any], count: int, deadline: float | None
    ) -> list[Completion]:
        """Completions of one request, as `complete`; what they used stands with the first.

        Args:
            asked: as `parameters` gives it. vLLM adds a choice's index to the seed.
            count: choices wanted; the endpoint may give fewer.

        Raises:
            ChoicesRefused: with more than one; it may not refuse one.
        """
        requests = 0
        more = {"n": count} if count > 1 else {}

        async def attempt() -> list[Completion]:
            nonlocal requests
            async with self._slot(count) as slot:
                name, attributes = f"chat {self._model}", self._attributes(asked["seed"])
                with span(name, attributes, kind=SpanKind.CLIENT) as call:
                    found = None
                    while found is None:
                        requests += 1
                        found = await self._ask({**self._dialect.said(asked), **more}, slot)
                    used = found[0].usage
                    call.set_attribute("gen_ai.usage.input_tokens", used.prompt_tokens)
                    call.set_attribute("gen_ai.usage.output_tokens", used.completion_tokens)
                    return found

        left = None if deadline is None else deadline - asyncio.get_running_loop().time()
        try:
            found = await self._retries.call(attempt, timeout=left, sleep=self._sleep)
        except CallFailed as failed:
            failed.requests = requests
            raise
        refused = self._dialect.refused & asked.keys()
        usage = replace(found[0].usage, requests=requests)
        return [
            replace(each, usage=Usage() if index else usage, refused=refused)
            for index, each in enumerate(found)
        ]

    async def check_ready(self) -> None:
        """Asks the endpoint for GET /models until it has answered once, every few seconds.

        From then on the judge stays ready: all its replicas would leave their service at once when
        the endpoint they share is busy or restarts, and clients would lose the judge instead of
        hearing from it what is wrong. An endpoint that accepts the connection and lets it wait is
        busy; one without that path (404) is there too. A model that its list lacks does not count
        against it: gateways list only a part of what they serve.

        Raises:
            Unavailable: with the URL and what to do.
        """
        if self._has_answered:
            return
        now = self._clock()
        if self._probed is None or now - self._probed[0] >= _PROBE_SECONDS:
            error = await self._probe()
            if error is None:
                self._has_answered = True
                return
            self._probed = now, error
        raise self._probed[1]

    async def _probe(self) -> TuneproofError | None:
        try:
            # Each part of the request has these seconds; a body that drips has none of its own.
            async with asyncio.timeout(2 * _PROBE_SECONDS):
                await self._client.models.with_raw_response.list(timeout=_PROBE_SECONDS)
        except (openai.NotFoundError, openai.RateLimitError, TimeoutError):
            return None
        except openai.APIError as error:
            if _is_busy(error):
                return None
            what = (
                f"answers HTTP {error.status_code}; set TUNEPROOF_JUDGE_API_KEY"
                if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError)
                else f"does not answer GET /models ({_words_of(error)}); is it up, and is"
                " --endpoint-url right?"
            )
            return Unavailable(f"the judge's endpoint {self.url} {what}")
        return None

    async def _ask(self, asked: Mapping[str, Any], slot: Slot) -> list[Completion] | None:
        """Choices; None when the endpoint refuses a parameter, and can be asked without."""
        try:
            # The client's own time-out is per read; a server that drips never reaches it.
            async with asyncio.timeout(self._limits.request_timeout):
                raw = await self._client.chat.completions.with_raw_response.create(
                    model=self._model, **asked, extra_headers=headers()
                )
            found = read_reply(raw.content, asked.get("n", 1))
        except TimeoutError:
            REQUESTS.labels("timeout").inc()
            raise timed_out(
                f"the endpoint did not answer within {self._limits.request_timeout:g} s"
            ) from None
        except openai.APIError as error:
            REQUESTS.labels(_outcome_of(error)).inc()
            if isinstance(error, openai.RateLimitError):
                self._pace.refused(slot)
            if isinstance(error, openai.APIStatusError) and self._dialect.learns(error, asked):
                return None
            failure = failure_of(error, url=self.url, model=self._model)
            if "n" in asked and not failure.passing:
                raise ChoicesRefused(failure) from None
            raise failure from None
        except CallFailed:
            REQUESTS.labels("unreadable").inc()
            raise
        count_answered(found[0].usage)
        self._pace.answered(slot, raw.headers)
        return found

    def _attributes(self, seed: int) -> dict[str, str | bool | int | float]:
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": self._model,
            "gen_ai.request.seed": seed,
            "server.address": urlsplit(self._url).hostname or "",
        }

    @asynccontextmanager
    async def _slot(self, size: int) -> AsyncIterator[Slot]:
        # Held during a request only: one that waits for its next attempt blocks no other.
        async with self._pace.slot(size) as slot:
            IN_FLIGHT.inc(size)
            try:
                yield slot
            finally:
                IN_FLIGHT.dec(size)


def parameters(
    prompt: str,
    *,
    seed: int,
    temperature: float,
    max_tokens: int,
    probabilities: bool = False,
    begun: str = "",
    form: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the openai client is given for a completion, but the model; as `complete`."""
    asked: dict[str, Any] = {
        "messages": [{"role": "user", "content": prompt}],
        "seed": seed,
        "temperature": temperature,
        # Servers have other defaults: vLLM takes the model's generation config.
        "top_p": 1.0,
        "max_tokens": max_tokens,
    }
    asked |= _by_schema(form) if form else {}
    asked |= {"logprobs": True, "top_logprobs": _ALTERNATIVES} if probabilities else {}
    return asked | (_going_on(prompt, begun) if begun else {})


def _going_on(prompt: str, begun: str) -> dict[str, Any]:
    """As vLLM names it; others refuse it, or ignore it (`weighting` notices)."""
    return {
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": begun},
        ],
        "extra_body": {"continue_final_message": True, "add_generation_prompt": False},
    }


def _by_schema(form: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"name": "form", "strict": True, "schema": form}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _outcome_of(error: openai.APIError) -> str:
    if isinstance(error, openai.APIStatusError):
        return str(error.status_code)
    return "timeout" if isinstance(error, openai.APITimeoutError) else "connection"


def _is_busy(error: openai.APIError) -> bool:
    """Whether the endpoint took the connection, and then too long."""
    return isinstance(error, openai.APITimeoutError) and not isinstance(
        error.__cause__, httpx2.ConnectTimeout
    )


def _words_of(error: openai.APIError) -> str:
    if isinstance(error, openai.APIStatusError):
        return f"HTTP {error.status_code}"
    if isinstance(error, openai.APITimeoutError):
        return "no connection in time"
    return str(error.__cause__ or error)
