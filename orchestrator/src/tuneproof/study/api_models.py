"""Asking an API model of the study at its OpenAI-compatible endpoint.

Asking again is safe: an answer changes nothing at the endpoint. A failure that may pass is asked
again after a pause with jitter, or after the time that the endpoint asks for. A broken set-up (a
refused key, an unknown model, a spent quota) concerns every answer: the first one to meet it is the
last one to ask.

Some models, reasoning ones above all, refuse `temperature`, `seed` or `max_tokens`. After the first
refusal the setting is left out (`max_tokens` is sent under its newer name), and told with the
results.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, Field, ValidationError

from tuneproof.servicekit.errors import InvalidInput, TuneproofError, Unavailable, WrongState
from tuneproof.servicekit.http import retry_after, without_credentials
from tuneproof.servicekit.retries import Retries, Sleep
from tuneproof.study.design.models import ApiSpec

if TYPE_CHECKING:
    import openai

_NOT_SUPPORTED = re.compile(
    r"not support|unsupported|only the default|unrecogni[sz]ed|unknown|not (?:allowed|permitted)"
    r"|extra inputs|deprecated",
    re.IGNORECASE,
)
_DECODING = {"temperature": 0.0, "top_p": 1.0, "seed": 0}
"""As near to greedy as endpoints come."""
_NEWER_LENGTH = "max_completion_tokens"
_PASSING = frozenset({408, 409, 429})
_SHOWN = 300


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1, max_length=1)
    usage: _Usage | None = None
    model: str | None = None


class ApiModel:
    """A model behind the openai client, within its limits of requests and time.

    Args:
        key: sent as bearer token; empty: none is needed.
        sleep: waits a number of seconds before another try.
    """

    def __init__(self, spec: ApiSpec, key: str = "", *, sleep: Sleep = asyncio.sleep) -> None:
        self._spec = spec
        self._key = key
        self._sleep = sleep
        self._slots = asyncio.Semaphore(spec.concurrency)
        self._client: openai.AsyncOpenAI | None = None
        self._broken: WrongState | None = None
        self._settings: dict[str, Any] = dict(_DECODING)
        self._length = "max_tokens"
        self._retries = Retries(
            first=0.5,
            longest=30.0,
            jitter=0.5,
            attempts=8,
            longest_asked=spec.answer_seconds,
            passing=lambda error: isinstance(error, Unavailable),
        )

    async def __aenter__(self) -> Self:
        try:
            import openai  # noqa: PLC0415 - half a second, and most studies ask no API model
        except ImportError:
            raise InvalidInput(
                "API models need the openai package: pip install 'tuneproof[api]'"
            ) from None
        # We retry ourselves: the client knows neither the answer's time limit nor our slots.
        self._client = openai.AsyncOpenAI(
            base_url=self._spec.url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=self._spec.request_seconds,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()

    @property
    def refused(self) -> tuple[str, ...]:
        """Settings that the endpoint does not take, as far as is known."""
        return tuple(name for name in _DECODING if name not in self._settings)

    async def answer(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Any:
        """An answer as the state keeps it; tokens are those that the endpoint counts.

        Raises:
            Unavailable: the endpoint did not answer in time, whatever was tried.
            WrongState: the set-up is broken; so are all further answers.
            InvalidInput: it refuses this prompt.
        """
        # The time of an answer begins when it is its turn.
        async with self._slots:
            return await self._retries.call(
                lambda: self._attempt(messages, max_tokens),
                timeout=self._spec.answer_seconds,
                sleep=self._sleep,
            )

    async def _attempt(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Any:
        while True:
            if self._broken is not None:
                raise self._broken
            sent = {**self._settings, self._length: max_tokens}
            try:
                return await self._request(messages, sent)
            except _RefusedSetting as refused:
                self._learn(refused.setting)

    def _learn(self, setting: str) -> None:
        if setting == "max_tokens":
            self._length = _NEWER_LENGTH
        else:
            self._settings.pop(setting, None)  # Requests beside this one may have learnt it too.

    async def _request(self, messages: Sequence[Mapping[str, str]], sent: Mapping[str, Any]) -> Any:
        import openai  # noqa: PLC0415 - see above

        assert self._client is not None, "used as a context manager"  # noqa: S101
        begun = time.monotonic()
        try:
            # The client's own limit is per read; a server that drips never reaches it.
            async with asyncio.timeout(self._spec.request_seconds):
                # The client's types know only the roles, not a mapping with one.
                asked: Any = {"messages": list(messages), **sent}
                raw = await self._client.chat.completions.with_raw_response.create(
                    model=self._spec.model, **asked
                )
            reply = _Reply.model_validate_json(raw.content)
        except TimeoutError:
            raise self._late() from None
        except ValidationError as error:
            first = error.errors()[0]["msg"]
            raise Unavailable(f"{self._where} gave no chat completion: {first}") from None
        except openai.APIStatusError as error:
            raise self._failure(error, sent) from None
        except openai.APITimeoutError:
            raise self._late() from None
        except openai.APIError as error:
            cause = error.__cause__
            detail = f"{type(cause).__name__} {cause}" if cause else str(error)
            raise Unavailable(f"no answer of {self._where}: {detail}"[:_SHOWN]) from None
        return _answer_of(reply, self._spec.model, time.monotonic() - begun)

    def _late(self) -> Unavailable:
        return Unavailable(f"{self._where} did not answer within {self._spec.request_seconds:g} s")

    @property
    def _where(self) -> str:
        return f"{self._spec.name} at {without_credentials(self._spec.url)}"

    def _failure(self, error: openai.APIStatusError, sent: Mapping[str, Any]) -> Exception:
        """What a refused request means."""
        code, said = error.status_code, f"HTTP {error.status_code}: {error.message}"[:_SHOWN]
        if setting := _refused_setting(error, sent):
            return _RefusedSetting(setting)
        if code in (401, 403):
            names = f" {self._spec.key}" if self._spec.key else " `key`, the key's variable,"
            return self._break(
                f"does not accept the key ({said}): set{names} to one that may use it"
            )
        if code == 404:
            return self._break(
                f"does not know {self._spec.model!r}, or is not an OpenAI-compatible base URL"
                f" ({said}): correct `model` or `url`, which usually ends in /v1"
            )
        if error.code == "insufficient_quota":
            return self._break(f"has spent its quota ({said}): raise it, or set another key")
        if code in _PASSING or code >= 500:
            wait = retry_after(error.response.headers.get("retry-after", ""))
            return Unavailable(f"{self._where} answered {said}", retry_after=wait)
        return InvalidInput(f"{self._where} refuses this prompt ({said})")

    def _break(self, what: str) -> WrongState:
        self._broken = WrongState(f"{self._where} {what}")
        return self._broken


class _RefusedSetting(TuneproofError):
    """The endpoint does not take a setting."""

    def __init__(self, setting: str) -> None:
        super().__init__(f"the endpoint does not take {setting}")
        self.setting = setting


def _refused_setting(error: openai.APIStatusError, sent: Mapping[str, Any]) -> str:
    """The setting of a request that was refused because of it; empty for another failure."""
    if error.status_code not in (400, 422):
        return ""
    text = str(error.message)
    known = str(error.code or "").startswith("unsupported") or _NOT_SUPPORTED.search(text)
    if not known:
        return ""
    learnable = [name for name in sent if name != _NEWER_LENGTH]
    if error.param in learnable:
        return str(error.param)
    named = [name for name in learnable if re.search(rf"\b{name}\b", text)]
    return named[0] if named else ""


def _answer_of(reply: _Reply, model: str, seconds: float) -> dict[str, object]:
    choice, used = reply.choices[0], reply.usage or _Usage()
    return {
        "text": choice.message.content or choice.message.refusal or "",
        "finish_reason": choice.finish_reason or "stop",
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "seconds": seconds,
        "served_by": reply.model or model,
    }
