"""Which parameters an endpoint takes, learnt from its first refusals.

Reasoning models refuse `temperature`, `top_p` or `seed` and want `max_completion_tokens`; others
know no `response_format`. Each refusal costs one request, once: from then on the endpoint is asked
without what it refuses, and a warning says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import openai
import structlog

_log = structlog.get_logger(__name__)

_LEARNT_FROM = frozenset({400, 422})
_OPTIONAL = ("temperature", "top_p", "seed", "response_format")
_TOKENS, _OTHER_TOKENS = "max_tokens", "max_completion_tokens"
_REFUSED = re.compile(
    r"unsupported|unknown|unrecogni[sz]ed|unexpected|extra (?:inputs|fields)"
    r"|not (?:supported|permitted|allowed|accepted|available)|does(?: not|n't) support"
    r"|only the default|deprecated|cannot both|invalid_request_parameter",
    re.IGNORECASE,
)


class Dialect:
    """What one endpoint takes."""

    def __init__(self, url: str, model: str) -> None:
        self._url, self._model = url, model
        self._refused: set[str] = set()

    @property
    def refused(self) -> frozenset[str]:
        """The parameters that it refuses."""
        return frozenset(self._refused)

    def said(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A request's parameters as the endpoint takes them."""
        names = {_TOKENS: _OTHER_TOKENS} if _TOKENS in self._refused else {}
        return {
            names.get(name, name): value
            for name, value in asked.items()
            if name in names or name not in self._refused
        }

    def learns(self, error: openai.APIStatusError, sent: Mapping[str, Any]) -> bool:
        """Whether an endpoint refuses a parameter that it can be asked without.

        Args:
            sent: the parameters that it was asked with.
        """
        if error.status_code not in _LEARNT_FROM:
            return False
        found = _named(error) & sent.keys()
        for name in sorted(found - self._refused):
            _log.warning(
                "the endpoint refuses a parameter, and is asked without it from now on",
                url=self._url,
                model=self._model,
                parameter=name,
                said=error.message[:200],
            )
        self._refused |= found
        return bool(found)


def _named(error: openai.APIStatusError) -> set[str]:
    """The parameters that a refusal names, of those that can be left out or called otherwise."""
    message = error.message
    if not (_REFUSED.search(message) or (error.code or "").startswith("unsupported")):
        return set()
    if _OTHER_TOKENS in message:
        return {_TOKENS}
    if error.param in _OPTIONAL:
        return {error.param}
    return {name for name in _OPTIONAL if re.search(rf"\b{name}\b", message)}
