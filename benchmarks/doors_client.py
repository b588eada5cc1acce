"""A client of one door for doors.py: reads orders from standard input, tells what it measured."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import aiohttp
import grpc
import uvloop

from tuneproof.data.telecom_grammar import draw_entity, draw_fact, draw_parameter
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.prompts import rag_messages

MODEL = "telecom-reader"
MAX_TOKENS = 24
"""Answers have 1 to this many tokens. If all were equally long, they would begin and end together:
the first token's time would then depend on the engine's steps more than on the door."""
_METHOD = "/tuneproof.generator.v1.GeneratorService/Generate"


@dataclass(frozen=True)
class Answer:
    """What is kept of one answer."""

    first: float
    """Seconds to the first token."""
    events: int
    """Messages or server-sent events with tokens."""
    tokens: int
    """As the server counts them."""


Ask = Callable[[bytes], Coroutine[Any, Any, Answer]]


async def main(door: str, target: str) -> None:
    """Loads the door as each line of standard input orders."""
    opened, make = (_grpc, _grpc_request) if door == "grpc" else (_openai, _openai_request)
    async with opened(target) as ask:
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            rng = random.Random(f"{order['seed']} {door}")
            requests = [make(_question(rng), tokens) for tokens in _lengths(**order)]
            print(json.dumps(await _load(ask, requests, order["concurrency"])), flush=True)


async def _load(ask: Ask, requests: list[bytes], concurrency: int) -> dict[str, float]:
    waiting = iter(requests)
    answers: list[Answer] = []

    async def work() -> None:
        for request in waiting:
            answers.append(await ask(request))  # noqa: PERF401 - one after the other

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    seconds = time.perf_counter() - start
    firsts = [answer.first for answer in answers]
    return {
        "rps": len(requests) / seconds,
        "ttft_p50": median(firsts),
        "ttft_p99": quantiles(firsts, n=100)[98],
        "tokens": sum(answer.tokens for answer in answers) / len(answers),
        "events": sum(answer.events for answer in answers) / len(answers),
    }


def _lengths(seed: str, requests: int, **_: Any) -> list[int]:
    """The most tokens of each answer: every number as often, in an order that all doors share."""
    lengths = [1 + number % MAX_TOKENS for number in range(requests)]
    random.Random(seed).shuffle(lengths)
    return lengths


def _question(rng: random.Random) -> str:
    """A question of the demo's world with twelve facts, new in every run."""
    facts = [draw_fact(rng, draw_entity(rng), draw_parameter(rng)) for _ in range(12)]
    passages = [" ".join(fact.sentence for fact in facts[n : n + 3]) for n in range(0, 12, 3)]
    return rag_messages(rng.choice(facts).question, passages)[0]["content"]


def _grpc_request(text: str, tokens: int) -> bytes:
    request = pb.GenerateRequest(
        model=MODEL,
        chat=pb.Chat(messages=[pb.Message(role=pb.ROLE_USER, content=text)]),
        sampling=pb.Sampling(max_tokens=tokens),
    )
    return request.SerializeToString()


@asynccontextmanager
async def _grpc(target: str) -> AsyncIterator[Ask]:
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_stream(_METHOD)

        async def ask(request: bytes) -> Answer:
            start, first, events, last = time.perf_counter(), 0.0, 0, b""
            async for message in call(request):
                if not events:
                    first = time.perf_counter() - start
                events += 1
                last = message
            final = pb.GenerateResponse.FromString(last).final
            return Answer(first, events, final.usage.completion_tokens)

        yield ask


def _openai_request(text: str, tokens: int) -> bytes:
    request = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(request).encode()


@asynccontextmanager
async def _openai(url: str) -> AsyncIterator[Ask]:
    headers = {"content-type": "application/json"}
    # uvicorn ends a connection that was idle for 5 s, maybe just when it is used again.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def ask(request: bytes) -> Answer:
            start, first, events, tail = time.perf_counter(), 0.0, 0, b""
            async with session.post(f"{url}/chat/completions", data=request) as response:
                response.raise_for_status()
                async for part in response.content.iter_any():
                    events += part.count(b"data: ")
                    # The first event tells the role only.
                    if not first and events > 1:
                        first = time.perf_counter() - start
                    tail = tail[-2000:] + part
            usage = json.loads(tail.split(b"data: ")[-2])["usage"]
            # Besides the role there are the usage and [DONE].
            return Answer(first, events - 3, usage["completion_tokens"])

        yield ask


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
