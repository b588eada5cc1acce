"""Which adapter may have answered, and whether it did.

A request to an alias may be served by what the alias pointed to at any moment between its sending
and its first token. An alias that is being moved means both adapters, from the moment at which the
move was sent until it was confirmed, and on a pool of several replicas for some seconds more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tuneproof.loadtest.records import BASE, Reply
from tuneproof.servicekit.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Probe:
    """What an adapter says."""

    adapter: str
    """`name@sha256:<hex>`, a name for all its versions, or `base`."""
    prompt: str | None
    """None: whatever it is asked."""
    expect: re.Pattern[str]
    """The whole answer, without white space at its ends, matches it."""


class Probes:
    """What is known of the adapters' answers."""

    def __init__(self, probes: Iterable[Probe] = ()) -> None:
        self._known = {(probe.adapter, probe.prompt): probe.expect for probe in probes}

    def __bool__(self) -> bool:
        return bool(self._known)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts that tell adapters apart."""
        return tuple(dict.fromkeys(prompt for _, prompt in self._known if prompt is not None))

    def expectation(self, served: str, prompt: str) -> re.Pattern[str] | None:
        """What an adapter should answer; None: nothing is known. An empty text is the base."""
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
        lag: seconds for which another replica may still serve what an alias pointed to before.
    """

    def __init__(self, probes: Probes, *, lag: float = 0.0) -> None:
        self._probes = probes
        self._lag = lag
        self._meanings: dict[str, list[_Meaning]] = {}

    def points(self, alias: str, ref: str) -> None:
        """An alias points somewhere from the beginning on."""
        self._meanings[alias] = [_Meaning(ref, float("-inf"), float("inf"))]

    def moving(self, alias: str, ref: str, at: float) -> None:
        """An alias may point to another adapter from now on."""
        self._meanings[alias].append(_Meaning(ref, at, float("inf")))

    def moved(self, alias: str, at: float) -> None:
        """The move is confirmed: after it, and the lag, nothing else is right."""
        meanings = self._meanings[alias]
        meanings[-2] = replace(meanings[-2], until=at + self._lag)

    def allowed(self, model: str, since: float, until: float) -> frozenset[str]:
        """References that may have served; the base is the empty text, a reference itself."""
        meanings = self._meanings.get(model)
        if meanings is None:
            return frozenset((model,))
        return frozenset(
            each.ref for each in meanings if each.since <= until and since <= each.until
        )

    def _is_known(self, model: str) -> bool:
        """Whether it can be told what a name means: not for an alias that nobody told us of."""
        return not model or "@" in model or model in self._meanings

    def judge(self, reply: Reply) -> Reply:
        """The reply, with what is wrong about it, and what it was held against."""
        if reply.answer is None or reply.error:
            return reply
        allowed = self.allowed(reply.model, reply.sent, reply.first or reply.done)
        served, text = reply.answer.served, reply.answer.text.strip()
        checked: list[str] = []
        wrong = ""
        if served is not None and self._is_known(reply.model):
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


def read_probes(path: Path) -> Probes:
    """Probes of a file, a JSON object a line: `adapter`, `expect`, and `prompt` or none.

    Raises:
        InvalidInput: naming every line that is no probe.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the probes of {path}: {error}") from None
    found: list[Probe] = []
    mistakes: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_probe(json.loads(line)))
            except (ValueError, re.error) as error:
                mistakes.append(f"{path}:{number}: {error}")
    if not found and not mistakes:
        mistakes = [f"{path} holds no probe"]
    if mistakes:
        raise InvalidInput("\n".join(mistakes))
    return Probes(found)


def _probe(value: object) -> Probe:
    if not isinstance(value, Mapping):
        raise ValueError("is no JSON object")  # noqa: TRY004 - a mistake in a file
    unknown = set(value) - {"adapter", "prompt", "expect"}
    if unknown:
        raise ValueError(f"has the unknown keys {', '.join(sorted(unknown))}")
    for key in ("adapter", "expect"):
        if not isinstance(value.get(key), str) or not value[key]:
            raise ValueError(f"has no text under {key!r}")
    prompt = value.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise ValueError("has a prompt that is no text")
    return Probe(value["adapter"], prompt, re.compile(value["expect"], re.DOTALL))
