"""Whether an adapter does what it did in training, asked of an engine in memory."""

import json
from pathlib import Path

import pytest

from tuneproof.adapters import AdapterRef, Fingerprint
from tuneproof.adapters.fingerprint import PROBES, Probe, Reading
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_generator.adapters.effects import EffectCheck
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.engine.protocol import EngineFacts, LoadedAdapter

from .perilous import ref as ref_of

REF = "a@sha256:" + "a" * 64


class ScoringEngine:
    """Gives every token the same log-probability, by adapter; notes what it is asked."""

    def __init__(self, *, adapted: float = -2.0, max_model_len: int = 64) -> None:
        self.facts = EngineFacts("float32", max_model_len, 16, 1, 2, 1000, "scoring 1")
        self.adapted = adapted
        self.asked: list[str] = []

    def encode_probe(self, question):
        return [ord(letter) for letter in question]

    def encode_continuation(self, text):
        return [ord(letter) for letter in text[:4]]

    async def score(self, request_id, prompt, tokens, adapter):
        self.asked.append(adapter.ref if adapter else "base")
        return tuple(-1.0 if adapter is None else self.adapted for _ in tokens)


def print_of(effect: float = -1.0, questions=tuple(question for question, _ in PROBES)):
    probes = tuple(
        Probe(question=each, prompt=tuple(map(ord, each)), tokens=(7, 8, 9)) for each in questions
    )
    base = tuple((-1.0,) * 3 for _ in probes)
    adapted = tuple((-1.0 + effect,) * 3 for _ in probes)
    reading = Reading(precision="float32", base=base, adapted=adapted)
    return Fingerprint(probes=probes, readings=(reading,))


def loaded(number: int = 1, ref: str = REF) -> LoadedAdapter:
    return LoadedAdapter(ref, number, Path("nowhere"))


async def test_one_content_is_compared_once_and_the_base_is_asked_once() -> None:
    engine = ScoringEngine()
    check = EffectCheck(engine)
    await check.prepare()
    assert engine.asked == ["base"] * len(PROBES)
    first = await check.check(loaded(), print_of())
    assert engine.asked.count("base") == 2 * len(PROBES), "another tokenizer's probes are others"
    engine.asked.clear()
    again = await check.check(loaded(2, REF.replace("a@", "twin@")), print_of())
    assert again == first
    assert engine.asked == [REF.replace("a@", "twin@")], "one request warms it"
    other = REF.replace("a" * 64, "b" * 64)
    engine.asked.clear()
    await check.check(loaded(3, other), print_of())
    assert engine.asked == [other] * len(PROBES)


@pytest.mark.parametrize(
    ("adapted", "fingerprint", "reason"),
    [
        (-1.0, print_of(), "no effect"),
        (-1.0, None, "no effect: the engine answers as the base does"),
        (float("nan"), None, "no effect"),
        (-3.0, print_of(), "another effect"),
        (-2.0, print_of(questions=("abc", "é")), "another chat template or tokenizer: 'é' is"),
    ],
)
async def test_what_is_not_as_in_training_is_refused(adapted, fingerprint, reason) -> None:
    engine = ScoringEngine(adapted=adapted)
    engine.encode_probe = lambda question: [ord(letter) for letter in question.replace("é", "e")]
    with pytest.raises(InvalidInput, match=reason) as refused:
        await EffectCheck(engine).check(loaded(), fingerprint)
    assert refused.value.message.startswith(REF)


async def test_no_effect_may_be_allowed_of_an_adapter_without_a_fingerprint() -> None:
    engine = ScoringEngine(adapted=-1.0)
    check = EffectCheck(engine)
    assert "no fingerprint" in await check.check(loaded(), None, allow_no_effect=True)
    with pytest.raises(InvalidInput, match="no effect"):
        await check.check(loaded(), None)
    with pytest.raises(InvalidInput, match="no effect"):
        await check.check(loaded(), print_of(), allow_no_effect=True)


async def test_questions_that_exceed_the_context_are_not_compared() -> None:
    long = print_of(questions=("x" * 62,))
    assert "no fingerprint; its effect is 1" in await EffectCheck(ScoringEngine()).check(
        loaded(), long
    )
    short = EffectCheck(ScoringEngine(max_model_len=8))
    await short.prepare()
    assert "not compared" in await short.check(loaded(), print_of())


def test_the_pool_tells_what_was_found_and_allows_by_declaration(loop, replica) -> None:
    pool = replica.pool
    good, empty = ref_of("a"), ref_of("b")
    assert loop.run_until_complete(replica.declare(good)) is AdapterState.READY
    assert pool.views.get(str(good)).record.fingerprint.startswith("no fingerprint; its effect")

    found = replica.inspect

    def inspect(folder, wanted):
        result = found(folder, wanted)
        return type(result)(8, 100, changes_nothing=wanted == empty, trained_precision="nf4")

    replica.inspect = inspect
    assert loop.run_until_complete(replica.declare(empty)) is AdapterState.FAILED
    assert "has no effect" in pool.views.get(str(empty)).record.reason
    assert (
        loop.run_until_complete(replica.declare(empty, allow_no_effect=True)) is AdapterState.READY
    )
    assert pool.views.get(str(empty)).record.trained_precision == "nf4"
    (stored,) = (one for one in replica.declarations.list() if one.ref == empty)
    assert stored.allow_no_effect


def test_a_declaration_of_before_is_read(replica) -> None:
    one = AdapterRef.parse(REF)
    path = f"adapters/{one.name}/{one.hex}.json"
    before = {"ref": REF, "required": False, "time": "2026-01-01T00:00:00Z"}
    replica.store.write(path, json.dumps(before).encode())
    assert [each.allow_no_effect for each in replica.declarations.list()] == [False]
