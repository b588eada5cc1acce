"""Which adapter may have answered, and whether it did.

An alias may serve a request with any adapter that it pointed to between the request's sending and
its first token. While an alias moves it means both adapters: from the sending of the move until its
confirmation, and in a pool of several replicas for some seconds more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tuneproof.loadtest.records import BASE, Reply


@dataclass(frozen=True, slots=True)
class Probe:
    """What an adapter says."""

    adapter: str
    """`name@sha256:<hex>`, a name for all its versions, or `base`."""
    prompt: str | None
    """None: any prompt."""
    expect: re.Pattern[str]
    """Matches the whole answer, without white space at its ends."""


class Probes:
    """What the adapters say."""

    def __init__(self, probes: Iterable[Probe] = ()) -> None:
        self._known = {(probe.adapter, probe.prompt): probe.expect for probe in probes}

    def __bool__(self) -> bool:
        return bool(self._known)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts that tell adapters apart."""
        return tuple(dict.fromkeys(prompt for _, prompt in self._known if prompt is not None))

    def expectation(self, served: str, prompt: str) -> re.Pattern[str] | None:
        """What an adapter (empty: the base model) should answer; None where no probe says it."""
        for adapter in (served, served.partition("@")[0]) if served else (BASE,):
            for asked in (prompt, None):
                if (adapter, asked) in self._known:
                    return self._known[adapter, asked]
        return None


@dataclass(frozen=True, slots=True)
class _Meaning:
    ref: str
    since: float
    until: float


class Truth:
    """Where the aliases pointed, and what the adapters say.

    Args:
        lag: seconds for which another replica may still serve an alias's former adapter.
    """

    def __init__(self, probes: Probes, *, lag: float = 0.0) -> None:
        self._probes = probes
        self._lag = lag
        self._meanings: dict[str, list[_Meaning]] = {}

    def points(self, alias: str, ref: str) -> None:
        """An alias points to an adapter from the beginning on."""
        self._meanings[alias] = [_Meaning(ref, float("-inf"), float("inf"))]

    def moving(self, alias: str, ref: str, at: float) -> None:
        """An alias may point to another adapter from now on."""
        self._meanings[alias].append(_Meaning(ref, at, float("inf")))

    def moved(self, alias: str, at: float) -> None:
        """The move is confirmed: after the lag only the new adapter is right."""
        meanings = self._meanings[alias]
        meanings[-2] = replace(meanings[-2], until=at + self._lag)

    def allowed(self, model: str, since: float, until: float) -> frozenset[str]:
        """References that may have served; empty: the base model. A reference means itself."""
        if (meanings := self._meanings.get(model)) is None:
            return frozenset((model,))
        return frozenset(
            each.ref for each in meanings if each.since <= until and since <= each.until
        )

    def judge(self, reply: Reply) -> Reply:
        """The reply, with what is wrong about it, and what it was compared with."""
        if reply.answer is None or reply.error:
            return reply
        allowed = self.allowed(reply.model, reply.sent, reply.first or reply.done)
        served, text = reply.answer.served, reply.answer.text.strip()
        checked: list[str] = []
        wrong = ""
        # The meaning of an alias is known only if `points` set it.
        known = not reply.model or "@" in reply.model or reply.model in self._meanings
        if served is not None and known:
            checked.append("digest")
            if served not in allowed:
                names = " or ".join(sorted(_named(ref) for ref in allowed))
                wrong = f"{_named(served)} served, {names} was asked"
        patterns = {
            ref: self._probes.expectation(ref, reply.prompt)
            for ref in (allowed if served is None else (served,))
        }
        if patterns and None not in patterns.values():
            checked.append("text")
            if not any(pattern and pattern.fullmatch(text) for pattern in patterns.values()):
                names = " or ".join(sorted(_named(ref) for ref in patterns))
                wrong = wrong or f"{names} does not say {text[:120]!r}"
        return replace(reply, wrong=wrong, checked=tuple(checked))


def _named(ref: str) -> str:
    name, at, digest = ref.partition("@sha256:")
    return f"{name}@{digest[:12]}" if at else ref or "the base model"
