"""Whether an adapter does in the engine what it did in training, asked when it is warmed.

vLLM 0.32 serves the base in silence where module names do not match or modules are not adapted.
Only the engine's own answers show that.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from functools import cached_property

from tuneproof.adapters import Fingerprint, compare
from tuneproof.adapters.fingerprint import PROBES, Probe, Scores, mean_difference
from tuneproof.adapters.likeness import tolerance_of
from tuneproof.servicekit.digests import sha256_of_bytes
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_generator.engine.protocol import Engine, LoadedAdapter

_KEPT_BASES = 16
"""Sets of probes whose base scores are kept. All adapters of one trainer share one set."""


class EffectCheck:
    """Scores fixed tokens with the base, once, and with each adapter, once for each content."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._base: dict[tuple[Probe, ...], Scores] = {}
        self._passed: dict[tuple[str, str, bool], str] = {}
        self._numbers = itertools.count(1)

    async def prepare(self) -> None:
        """Scores the fixed probes with the base. So no adapter waits for a compiler, which the
        first request for log-probabilities starts on a GPU."""
        if self._fit(self._own):
            await self._of_base(self._own)

    async def check(
        self,
        adapter: LoadedAdapter,
        fingerprint: Fingerprint | None,
        *,
        allow_no_effect: bool = False,
    ) -> str:
        """Asks a loaded adapter for the first time, and compares.

        Args:
            fingerprint: None for an adapter of another tool, which must change something.
            allow_no_effect: whether that one may change nothing.

        Returns:
            what was found, in words.

        Raises:
            InvalidInput: when it does something else than in training, or nothing.
            Unavailable: when the engine is dead.
        """
        if fingerprint is not None and not self._fit(fingerprint.probes):
            fingerprint = None
        text = fingerprint.to_text() if fingerprint else ""
        key = (adapter.ref.partition("@")[2], sha256_of_bytes(text.encode()), allow_no_effect)
        probes = fingerprint.probes if fingerprint else self._own
        if key in self._passed or not self._fit(probes):
            await self._warm(adapter)
            return self._passed.get(key, "not compared: max_model_len is below its questions")
        if fingerprint is not None:
            self._check_prompts(adapter, probes)
        base = await self._of_base(probes)
        adapted = await self._scores(f"warm-{adapter.engine_id}", probes, adapter)
        if fingerprint is None:
            found = self._some_effect(adapter, base, adapted, allowed_none=allow_no_effect)
        else:
            likeness = compare(fingerprint, base, adapted, self._engine.facts.dtype)
            if likeness.problem:
                raise _refused(adapter, likeness.problem)
            found = likeness.words
        self._passed[key] = found
        return found

    def _some_effect(
        self, adapter: LoadedAdapter, base: Scores, adapted: Scores, *, allowed_none: bool
    ) -> str:
        served = self._engine.facts.dtype
        effect = mean_difference(adapted, base)
        # Not "at most": NaN is no effect either.
        if not effect > tolerance_of(served, served).nothing and not allowed_none:
            raise _refused(
                adapter,
                f"no effect: the engine answers as the base does (they differ by {effect:.2g} nat a"
                " token). The names of its modules do not match the served model's, or the engine"
                " does not adapt these modules. If it is meant, declare it with allow_no_effect",
            )
        return f"no fingerprint; its effect is {effect:.4g} nat a token"

    def _check_prompts(self, adapter: LoadedAdapter, probes: Sequence[Probe]) -> None:
        """Another template, or tokenizer, makes other tokens of the questions."""
        for probe in probes:
            here = tuple(self._engine.encode_probe(probe.question))
            if here == probe.prompt and max(probe.tokens) < self._engine.facts.vocabulary:
                continue
            same = _equal(here, probe.prompt)
            raise _refused(
                adapter,
                f"another chat template or tokenizer: {probe.question!r} is {len(here)} tokens here"
                f" and {len(probe.prompt)} in training, the same ones up to token {same}."
                " Serve the template that it was trained with, or train it with this"
                " one",
            )

    async def _of_base(self, probes: tuple[Probe, ...]) -> Scores:
        if probes not in self._base:
            if len(self._base) >= _KEPT_BASES:
                del self._base[next(iter(self._base))]
            self._base[probes] = await self._scores("warm-base", probes, None)
        return self._base[probes]

    async def _scores(
        self, name: str, probes: Sequence[Probe], adapter: LoadedAdapter | None
    ) -> Scores:
        scores = (
            self._engine.score(f"{name}-{next(self._numbers)}", each.prompt, each.tokens, adapter)
            for each in probes
        )
        return tuple(await asyncio.gather(*scores))

    async def _warm(self, adapter: LoadedAdapter) -> None:
        await self._engine.score(
            f"warm-{adapter.engine_id}-{next(self._numbers)}", (0,), (0,), adapter
        )

    def _fit(self, probes: Sequence[Probe]) -> bool:
        longest = max(len(each.prompt) + len(each.tokens) for each in probes)
        return longest < self._engine.facts.max_model_len

    @cached_property
    def _own(self) -> tuple[Probe, ...]:
        """The probes of adapters without a fingerprint; a trainer on this base makes the same."""
        return tuple(
            Probe(
                question=question,
                prompt=tuple(self._engine.encode_probe(question)),
                tokens=tuple(self._engine.encode_continuation(text)),
            )
            for question, text in PROBES
        )


def _equal(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences share before they differ."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _refused(adapter: LoadedAdapter, problem: str) -> InvalidInput:
    return InvalidInput(
        f"{adapter.ref} is not served: {problem}",
        field="adapter_ref",
        reason="ADAPTER_REFUSED",
        codes="fingerprint",
    )
