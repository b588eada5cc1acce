"""A load test of two minutes as it comes out of a run: swaps, failures and wrong answers in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count, islice, product

from tuneproof.loadtest import LoadSpec, Span, SwapSpec, figures_of
from tuneproof.loadtest.arrivals import Prompts, asks
from tuneproof.loadtest.records import Answer, Ask, Phase, Reply, Swap
from tuneproof.loadtest.trial import LoadResult
from tuneproof.sdk import PoolInfo

LOAD = LoadSpec(
    rate=6.0, seconds=20.0, in_flight=8, full_seconds=8.0, rounds=2, answer_tokens=Span(8, 24)
)
ALIASES = ("loadtest-0", "loadtest-1", "loadtest-2")
REFS = tuple(
    f"telecom-short-references-{n}@sha256:" + f"{n:02x}9e4c7ab1" * 6 + "0f2b" for n in range(8)
)
POOL = PoolInfo(
    base_model="Qwen/Qwen2.5-0.5B-Instruct",
    config_digest="sha256:" + "1a" * 32,
    tokenizer_digest="sha256:" + "2b" * 32,
    chat_template_digest="sha256:" + "3c" * 32,
    dtype="bfloat16",
    max_model_len=2048,
    max_lora_rank=16,
    max_loras=4,
    max_cpu_loras=16,
    engine_version="0.11.0",
    replica="generator-7c9d5b6f4-x2x8q",
    process_id=71,
    start_time=None,
    openai_url="",
)


class _Pool:
    """Swaps one alias after the other, each to the next of the references."""

    def __init__(self) -> None:
        self._turns, self._next = count(), count(len(ALIASES))

    def swaps(self, rng: random.Random, start: float, end: float) -> Iterator[Swap]:
        at = start + 0.5
        while at < end - 1.0:
            turn, new = next(self._turns), next(self._next)
            alias, old = ALIASES[turn % len(ALIASES)], new - len(ALIASES)
            fetch, verify, load, warm = (s * rng.lognormvariate(0, 0.3) for s in (0.4, 0.1, 0.5, 1))
            heard = (at + 0.02, at + fetch, at + fetch + verify, at + fetch + verify + load)
            swap = Swap(
                *(alias, REFS[old % len(REFS)], REFS[new % len(REFS)], at),
                states=tuple(
                    zip(("fetching", "verifying", "loading", "ready"), heard, strict=True)
                ),
                stage_seconds={"fetch": fetch, "verify": verify, "load": load, "warm": warm / 10},
            )
            if turn == 4:
                why = "FAILED on generator-7c9d5b6f4-x2x8q: adapter_model.safetensors has rank 64,"
                yield replace(swap, states=(), stage_seconds={}, error=f"{why} and 16 is the most")
            else:
                yield replace(
                    swap,
                    ready=heard[-1],
                    first_seconds=0.09 * warm,
                    warm_seconds=0.06,
                    moved=heard[-1] + 0.3,
                    removed=heard[-1] + 1.1,
                )
            at += 4.0


def _reply(rng: random.Random, ask: Ask, start: float, slower: float) -> Reply:
    due = start + ask.due
    first = due + slower * rng.lognormvariate(-2.6, 0.5)
    done = first + ask.max_tokens * slower * rng.uniform(0.02, 0.03)
    told = Reply(ask.model, ask.prompt, due, due + 0.001, first, done, None, checked=("digest",))
    luck = rng.random()
    if luck < 0.006:
        return replace(
            told, first=None, error="no answer within 60 s: the stream ended", checked=()
        )
    served = rng.choice(REFS) if ask.model else ""
    text = "the Alder 11 transmit power is 46 dBm when band seven is active ."
    wrong = f"{served[:35]} served, {REFS[0][:35]} was asked" if luck > 0.99 and served else ""
    return replace(told, answer=Answer(text, ask.max_tokens, served), wrong=wrong)


def load_result() -> LoadResult:
    """The same result each time."""
    rng, pool, prompts = random.Random(5), _Pool(), Prompts(LOAD)
    phases: list[Phase] = []
    start = origin = 5000.0
    for number, load, side in product((1, 2), ("open", "full"), ("quiet", "swap")):
        end = start + (LOAD.seconds if load == "open" else LOAD.full_seconds)
        slower = (1.3 if side == "swap" else 1.0) * (2.0 if load == "full" else 1.0)
        drawn = islice(asks(LOAD, ALIASES, prompts, number), 120 if load == "open" else 90)
        replies = tuple(_reply(rng, ask, start, slower) for ask in drawn if ask.due < end - start)
        swaps = tuple(pool.swaps(rng, start, end)) if side == "swap" else ()
        phases.append(Phase(side, load, number, start, end, replies, swaps))
        start = end + 1.0
    return LoadResult(
        phases=tuple(phases),
        figures=figures_of(phases),
        started=datetime(2025, 3, 14, 9, 26, 53, tzinfo=UTC),
        origin=origin - 4.0,
        load=LOAD,
        models=ALIASES,
        pool=POOL,
        swaps=SwapSpec(REFS[:3], REFS[3:], rate=0.25),
        settings={"Address": "generator.tuneproof.svc.cluster.local:50051"},
    )
