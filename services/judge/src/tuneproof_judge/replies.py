"""What an OpenAI-compatible endpoint answers, and what each of its failures means.

There are three kinds of failure. A *broken set-up* (a wrong key, an unknown model) concerns all
requests and raises `WrongState`. A *passing* failure (429, 5xx, a lost connection, no answer in
time) is worth another attempt. Every other failure concerns this one prompt, and another attempt
changes nothing.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Mapping
from dataclasses import dataclass

import openai
from pydantic import BaseModel, Field, ValidationError

from tuneproof.servicekit.errors import WrongState
from tuneproof.servicekit.http import retry_after
from tuneproof_judge.grade import Failure, FailureKind, Usage

_NOT_ACCEPTED = frozenset({429, 502, 503, 504})
_PASSING = frozenset({408, 409})
_CONTENT_CODES = frozenset({"content_filter", "content_policy_violation"})
_SHOWN = 300


@dataclass(frozen=True)
class Token:
    """One token of a completion, with what the model might have written instead."""

    content: bytes
    alternatives: Mapping[bytes, float]
    """Probability by content, the token's own included; the most probable ones only."""


@dataclass(frozen=True)
class Completion:
    """A completion that arrived, whole or not."""

    text: str
    finish_reason: str
    """`stop`, or another reason to end, as `length` or `content_filter`."""
    refusal: str
    """The endpoint's words when it refused, else empty."""
    usage: Usage
    prompt_tokens: int = 0
    """How long the prompt was, also where a cache spared it."""
    tokens: tuple[Token, ...] = ()
    """Empty unless probabilities were asked for, and given."""
    refused: frozenset[str] = frozenset()
    """Parameters that the endpoint refuses, and was asked without."""


class CallFailed(Exception):
    """A completion that did not arrive."""

    def __init__(
        self,
        kind: FailureKind,
        detail: str,
        *,
        passing: bool = True,
        outage: bool = False,
        retry_after: float | None = None,
        failure: Failure | None = None,
    ) -> None:
        super().__init__(detail)
        self.failure = failure or Failure(kind, detail)
        self.passing = passing
        """Whether another attempt may help."""
        self.outage = outage
        """Whether the endpoint did not accept the request: no connection, 429, 502, 503, 504."""
        self.retry_after = retry_after
        """Seconds that the endpoint asks to wait."""
        self.requests = 1
        """HTTP requests made so far."""

    def for_another(self) -> CallFailed:
        """The same, for who waited for the same requests; they are counted once."""
        other = CallFailed(
            self.failure.kind,
            self.failure.detail,
            passing=self.passing,
            outage=self.outage,
            failure=self.failure,
        )
        other.requests = 0
        return other


class ChoicesRefused(CallFailed):
    """A request for several choices that another attempt does not mend."""

    def __init__(self, failed: CallFailed) -> None:
        super().__init__(failed.failure.kind, failed.failure.detail, passing=False)


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Alternative(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None = None

    @property
    def content(self) -> builtins.bytes:
        """Some servers give no bytes."""
        return builtins.bytes(self.bytes) if self.bytes else self.token.encode()


class _TokenLog(_Alternative):
    top_logprobs: list[_Alternative] = Field(default_factory=list)


class _Logprobs(BaseModel):
    content: list[_TokenLog] | None = None


class _Choice(BaseModel):
    message: _Message
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    index: int = 0


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def read_reply(body: bytes, most: int = 1) -> list[Completion]:
    """Reads the JSON of a chat completion: its choices, of which the first tells the usage of all.

    Args:
        most: choices that were asked for.

    Raises:
        CallFailed: it is not one; another attempt may help, since proxies cut and garble.
    """
    try:
        reply = _Reply.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _no_completion(f"{where} {first['msg']}".strip()) from None
    if len(reply.choices) > most:
        raise _no_completion(f"it has {len(reply.choices)} choices, of at most {most}")
    used = reply.usage or _Usage()
    details = used.prompt_tokens_details or _PromptDetails()
    usage = Usage(
        max(0, used.prompt_tokens or 0),
        max(0, used.completion_tokens or 0),
        max(0, details.cached_tokens or 0),
        requests=1,
    )
    return [
        Completion(
            text=choice.message.content or "",
            finish_reason=choice.finish_reason or "",
            refusal=choice.message.refusal or "",
            usage=Usage() if number else usage,
            prompt_tokens=usage.prompt_tokens,
            tokens=tuple(map(_token, (choice.logprobs and choice.logprobs.content) or ())),
        )
        for number, choice in enumerate(sorted(reply.choices, key=lambda each: each.index))
    ]


def _no_completion(wrong: str) -> CallFailed:
    return CallFailed(
        FailureKind.ENDPOINT, f"the endpoint's answer is not a chat completion: {wrong}"
    )


def _token(log: _TokenLog) -> Token:
    # Different tokens may be one text; some servers list the token itself among the others.
    told: dict[tuple[str, float], _Alternative] = {}
    for each in (log, *log.top_logprobs):
        told[each.token, each.logprob] = each
    alternatives: dict[bytes, float] = {}
    for each in told.values():
        alternatives[each.content] = alternatives.get(each.content, 0.0) + math.exp(each.logprob)
    return Token(log.content, alternatives)


def failure_of(error: openai.APIError, *, url: str, model: str) -> CallFailed:
    """What a failed request means.

    Raises:
        WrongState: no request can succeed before somebody corrects the set-up.
    """
    if isinstance(error, openai.APITimeoutError):
        return timed_out("the endpoint did not answer in time")
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        detail = f"no answer from {url}: {type(cause).__name__} {cause}" if cause else str(error)
        return CallFailed(FailureKind.ENDPOINT, detail[:_SHOWN], outage=True)
    if not isinstance(error, openai.APIStatusError):
        return CallFailed(FailureKind.ENDPOINT, f"the endpoint's answer cannot be read: {error}")
    code = error.status_code
    _raise_if_set_up_is_broken(error, url, model)
    if code == 400 and "logprob" in error.message.lower():
        raise no_probabilities(url)
    if error.code in _CONTENT_CODES:
        return CallFailed(FailureKind.REFUSED, f"HTTP {code}, {error.code}", passing=False)
    said = f"the endpoint answered HTTP {code}: {error.message}"
    return CallFailed(
        FailureKind.ENDPOINT,
        said[:_SHOWN],
        passing=code in _NOT_ACCEPTED or code in _PASSING or code >= 500,
        outage=code in _NOT_ACCEPTED,
        retry_after=retry_after(error.response.headers.get("retry-after", "")),
    )


def no_probabilities(url: str) -> WrongState:
    """The endpoint gives no probabilities of tokens, which the mode `weighted` needs."""
    return WrongState(
        f"the judge's endpoint {url} gives no probabilities of tokens (logprobs), which the mode"
        " weighted needs: ask for the mode sampled, or use an endpoint that gives them",
        reason="NO_PROBABILITIES",
    )


def cannot_go_on(url: str) -> WrongState:
    """The endpoint refuses a begun completion, which scores of several tokens need."""
    return WrongState(
        f"the judge's endpoint {url} does not go on from a begun completion, which the mode"
        " weighted needs for scores of several tokens: ask for the mode sampled, or use a scale"
        " whose scores are one token each",
        reason="NO_CONTINUATION",
    )


def timed_out(detail: str) -> CallFailed:
    """No answer in time. The prompt may be the cause, so it does not count as an outage."""
    return CallFailed(FailureKind.TIMEOUT, detail)


def _raise_if_set_up_is_broken(error: openai.APIStatusError, url: str, model: str) -> None:
    code = error.status_code
    if code in (401, 403):
        raise WrongState(
            f"the judge's endpoint {url} does not accept the key (HTTP {code}): set"
            " TUNEPROOF_JUDGE_API_KEY to one that may use it, and restart the judge",
            reason="ENDPOINT_KEY_REFUSED",
        )
    if code == 404:
        raise WrongState(
            f"the judge's endpoint {url} does not know the model {model!r}, or is not an"
            " OpenAI-compatible base URL (HTTP 404): compare --endpoint-model with what its"
            " /models lists; the URL usually ends in /v1",
            reason="ENDPOINT_MODEL_UNKNOWN",
        )
    if error.code == "insufficient_quota":
        raise WrongState(
            f"the account behind the judge's endpoint {url} has used up its quota (HTTP {code}):"
            " raise it, or set another key",
            reason="ENDPOINT_QUOTA_SPENT",
        )
