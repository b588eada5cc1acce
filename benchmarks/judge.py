"""What the judge saves of prompts and time, and what it costs beside its engine.

    make bench-judge

A small Llama with random weights and a tokenizer trained here answers every prompt with 40 tokens;
its words mean nothing, and no score is read. Two servers of vLLM's serve it, one with a prefix
cache (blocks of 32 tokens) and one without. One round grades the same answers in five ways, at most
32 completions at once in each:

    ours       our judge as a process, by GradeBatch, on the engine with the cache
    replayed   its requests, each for all repeats, in its order, to that engine by a bare client
    cached     independent calls, one for each repeat, in any order, to that engine
    uncached   the same, to the engine without a cache
    deepeval   deepeval's GEval, one call for each repeat, on the engine with the cache

The cache is emptied before each. `prompt_token_ratio` is what ours computes of prompt tokens by
what uncached computes, `speedup_uncached`, `speedup_cached` and `speedup_deepeval` the wall time of
theirs by ours, `overhead` ours by replayed, less 1; medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from service import free_port, server

from tuneproof.rubrics import RubricShelf
from tuneproof.sdk import GradeInput, JudgeClient
from tuneproof_judge.prompt import Subject, render
from tuneproof_judge.reading import seeds

AT_ONCE = 32
CHOICES = 10
"""Of a request by the judge: its default, and a grade's repeats."""
TOKENS = 40
SIDES = ("ours", "replayed", "cached", "uncached", "deepeval")
Call = tuple[str, int, int]
"""Prompt, seed and choices."""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch)
        model, rubrics = folder / "model", folder / "rubrics"
        _make_model(model)
        rubrics.mkdir()
        for criterion in ("accuracy", "completeness"):
            (rubrics / f"{criterion}.yaml").write_text(_rubric(criterion))
        urls = {
            "cached": stack.enter_context(_engine(model, folder, cached=True)),
            "uncached": stack.enter_context(_engine(model, folder, cached=False)),
        }
        target = stack.enter_context(_judge(urls["cached"], rubrics, folder))
        world = _World(RubricShelf.load(rubrics), options.answers, CHOICES)
        peer = stack.enter_context(_peer(options.peer))
        runs = asyncio.run(_rounds(world, urls, target, peer, options.rounds))
    results = {
        "prompt_token_ratio": _ratio(runs, "ours", "uncached", "computed"),
        "speedup_uncached": _ratio(runs, "uncached", "ours", "seconds"),
        "speedup_cached": _ratio(runs, "cached", "ours", "seconds"),
        "speedup_deepeval": _ratio(runs, "deepeval", "ours", "seconds"),
        "overhead": round(_ratio(runs, "ours", "replayed", "seconds") - 1.0, 4),
    }
    print(json.dumps({"bench": "judge", "results": results}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="after a small one that warms up")
    parser.add_argument("--peer", required=True, help="a Python that has deepeval")
    return parser.parse_args()


class _World:
    """Answers of random words, and the calls that grading them takes."""

    def __init__(self, shelf: RubricShelf, answers: int, repeats: int) -> None:
        self._rubrics = [shelf.get(f"bench-{name}@1") for name in ("accuracy", "completeness")]
        self._answers = answers
        self._repeats = repeats

    def inputs(self, number: int, *, small: bool) -> dict[str, GradeInput]:
        """Of one round: no engine has seen them."""
        draw = random.Random(number)
        ids = tuple(rubric.id for rubric in self._rubrics)
        return {
            f"{number}-{index}": GradeInput(
                _words(draw, 40),
                _words(draw, 230),
                (_words(draw, 160),),
                rubrics=ids,
                repeats=self._repeats,
                retries=0,
            )
            for index in range(self._answers // 10 if small else self._answers)
        }

    def calls(self, inputs: dict[str, GradeInput], choices: int) -> list[Call]:
        """In the judge's order."""
        return [
            (render(rubric, _subject(one)), seed, choices)
            for one in inputs.values()
            for rubric in self._rubrics
            for seed in seeds(one.seed, rubric.digest, self._repeats)[::choices]
        ]


def _subject(one: GradeInput) -> Subject:
    return Subject(one.question, one.answer, one.references)


async def _rounds(
    world: _World, urls: dict[str, str], target: str, peer: subprocess.Popen[str], rounds: int
) -> list[dict[str, dict[str, float]]]:
    """All but the first, a small one which warms everything up."""
    found = []
    async with JudgeClient(target) as judge:
        for number in range(rounds + 1):
            inputs = world.inputs(number, small=not number)
            calls = world.calls(inputs, CHOICES)
            alone = world.calls(inputs, 1)
            mixed = random.Random(number).sample(alone, len(alone))
            run: dict[str, dict[str, float]] = {}
            turn = number % len(SIDES)
            for side in SIDES[turn:] + SIDES[:turn]:
                url = urls["uncached" if side == "uncached" else "cached"]
                _empty(url)
                before, begun = _computed(url), time.perf_counter()
                if side == "ours":
                    await _graded(judge, inputs)
                elif side == "deepeval":
                    await asyncio.to_thread(_by_peer, peer, url, mixed)
                else:
                    await _asked(url, calls if side == "replayed" else mixed)
                seconds = time.perf_counter() - begun
                run[side] = {"seconds": seconds, "computed": _computed(url) - before}
            print(f"round {number}: {json.dumps(run)}", file=sys.stderr, flush=True)
            if number:
                found.append(run)
    return found


async def _graded(judge: JudgeClient, inputs: dict[str, GradeInput]) -> None:
    async for _, grade in judge.grade_many(inputs, in_flight=AT_ONCE):
        if isinstance(grade, Exception):
            raise grade
        lost = {each.failure for one in grade.criteria.values() for each in one.repeats}
        # Every completion goes on to its limit: nothing else went wrong.
        if lost != {"cut_off"}:
            raise SystemExit(f"the engine did not write {TOKENS} tokens: {lost}")


async def _asked(url: str, calls: list[Call]) -> None:
    waiting = iter(calls)
    at_once = AT_ONCE // calls[0][2]
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(limits=limits, timeout=600.0) as client:

        async def work() -> None:
            for prompt, seed, choices in waiting:
                body: dict[str, Any] = {
                    "model": "bench",
                    "messages": [{"role": "user", "content": prompt}],
                    "seed": seed,
                    "temperature": 1.0,
                    "top_p": 1.0,
                    "max_tokens": TOKENS,
                }
                body |= {"n": choices} if choices > 1 else {}
                reply = await client.post(f"{url}/chat/completions", json=body)
                reply.raise_for_status()

        await asyncio.gather(*(work() for _ in range(at_once)))


def _by_peer(peer: subprocess.Popen[str], url: str, calls: list[Call]) -> None:
    given = {"url": url, "prompts": [call[0] for call in calls], "at_once": AT_ONCE}
    assert peer.stdin
    assert peer.stdout
    peer.stdin.write(json.dumps({**given, "tokens": TOKENS}) + "\n")
    peer.stdin.flush()
    if not peer.stdout.readline():
        raise SystemExit("deepeval failed; its words are above")


def _ratio(runs: list[dict[str, dict[str, float]]], above: str, below: str, measure: str) -> float:
    return round(median(run[above][measure] / run[below][measure] for run in runs), 4)


def _computed(url: str) -> float:
    """Prompt tokens that the engine computed since it started."""
    text = urllib.request.urlopen(url.replace("/v1", "/metrics")).read().decode()
    values = {
        name: sum(map(float, re.findall(rf"^vllm:{name}(?:_total)?{{[^}}]*}} (\S+)", text, re.M)))
        for name in ("prompt_tokens", "prefix_cache_hits")
    }
    return values["prompt_tokens"] - values["prefix_cache_hits"]


def _empty(url: str) -> None:
    address = url.replace("/v1", "/reset_prefix_cache")
    urllib.request.urlopen(urllib.request.Request(address, method="POST")).read()


# What is measured


def _words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(WORDS, k=count))


WORDS = [
    "".join(random.Random(f"word {n}").choices("abcdefghijklmnoprstuvw", k=3 + n % 5))
    for n in range(600)
]


def _rubric(criterion: str) -> str:
    draw = random.Random(criterion)
    content = {
        "id": f"bench-{criterion}@1",
        "criterion": criterion,
        "description": _words(draw, 60),
        "scale": {"1": _words(draw, 10), "5": _words(draw, 10)},
        "low": 1,
        "high": 5,
        "steps": [_words(draw, 15), _words(draw, 15)],
        "template": "{{description}}\n{{scale}}\n{{steps}}\n{{question}}\n{{reference}}\n"
        "{{answer}}\n",
        "max_tokens": TOKENS,
    }
    return json.dumps(content)


def _make_model(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    draw = random.Random(1)
    inner.train_from_iterator(
        (_words(draw, 50) for _ in range(500)),
        trainers.BpeTrainer(
            vocab_size=2048,
            special_tokens=["<end>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        chat_template="{% for one in messages %}{{ one['content'] }}{% endfor %}",
    )
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=2048,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _engine(model: Path, scratch: Path, *, cached: bool) -> Iterator[str]:
    port = free_port()
    flag = "--enable-prefix-caching" if cached else "--no-enable-prefix-caching"
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
        *("--served-model-name", "bench", "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--max-model-len", "1024", "--block-size", "32", flag),
        *("--max-num-seqs", str(AT_ONCE), "--max-num-batched-tokens", "8192"),
        # A seed in a chunked prefill ends vLLM's engine on a CPU (0.32.0).
        *("--no-enable-chunked-prefill", "--uvicorn-log-level", "error"),
    ]
    quiet = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": "",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
    }
    with (
        _environment(quiet),
        server(
            command,
            scratch / f"engine-{port}.log",
            lambda: _answers(f"http://127.0.0.1:{port}/health"),
        ),
    ):
        yield f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def _judge(url: str, rubrics: Path, scratch: Path) -> Iterator[str]:
    announce = scratch / "judge.json"
    command = [
        *(sys.executable, "-m", "tuneproof_judge", "--bind=127.0.0.1:0", f"--rubrics={rubrics}"),
        *(f"--endpoint-url={url}", "--endpoint-model=bench", f"--concurrency={AT_ONCE}"),
        *(f"--announce-file={announce}", "--log-level=warning"),
    ]
    with server(command, scratch / "judge.log", announce.exists):
        yield json.loads(announce.read_text())["grpc"]


@contextlib.contextmanager
def _peer(python: str) -> Iterator[subprocess.Popen[str]]:
    """A process that grades by deepeval what it is given in lines."""
    script = Path(__file__).parent / "peers" / "deepeval_geval.py"
    environment = {**os.environ, "DEEPEVAL_TELEMETRY_OPT_OUT": "YES"}
    with subprocess.Popen(
        [python, str(script)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@contextlib.contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    before: dict[str, Any] = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    main()
