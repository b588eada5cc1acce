"""Our two doors against vLLM's own server.

    make bench-doors

Both servers run at once with the same engine settings, and one of them is loaded at a time, by a
client in a process of its own: grpc.aio for our gRPC door, aiohttp for ours and theirs of OpenAI.
The clients send bytes made beforehand and count events; only the last one of an answer is read,
for its token count. Every run asks new questions, so that no prefix cache knows them, and for
answers of many lengths. A ratio is the median over the rounds of ours divided by theirs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from service import generator, generator_flags, server

from tuneproof_generator.engine.environment import environment
from tuneproof_generator.main import _options as engine_options
from tuneproof_generator.settings import GeneratorSettings

ROOT = Path(__file__).parent.parent
MODEL = "telecom-reader"
CONCURRENCY = {1: 48, 16: 240, 64: 384}
"""Requests of a run by the number of them under way at once. Runs are short and rounds are many,
for a machine's speed changes within minutes, and both servers are started anew in between, for an
engine's speed differs from start to start."""
DOORS = ("grpc", "openai", "vllm")


def main() -> None:
    options = _options()
    # Ended from outside, it ends its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    runs: list[dict[str, Any]] = []
    for start in range(options.starts):
        with tempfile.TemporaryDirectory() as scratch, _servers(Path(scratch), options) as clients:
            runs += _rounds(clients, start, options)
    _show(runs)
    print(json.dumps({"bench": "doors", "results": _ratios(runs)}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "demo" / MODEL)
    parser.add_argument("--starts", type=int, default=3, help="of both servers")
    parser.add_argument("--rounds", type=int, default=5, help="after each start")
    parser.add_argument("--stream-interval", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of the requests of a run")
    return parser.parse_args()


# The runs


def _rounds(
    clients: dict[str, _Client], start: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """All runs but those of the first round, which warms everything up."""
    runs = []
    for number in range(options.rounds + 1):
        for concurrency, requests in CONCURRENCY.items():
            asked = max(round(options.scale * requests / (1 if number else 4)), concurrency)
            seed = f"{start} {number} {concurrency}"
            # Each door is first, second and third in turn.
            turn = number % len(DOORS)
            for door in DOORS[turn:] + DOORS[:turn]:
                run = clients[door].load(seed, concurrency, asked)
                made = {"round": (start, number), "door": door, "concurrency": concurrency}
                if number:
                    runs.append(made | run)
        print(
            f"start {start + 1} of {options.starts}, round {number} of {options.rounds}:"
            f" {_ratios(runs[-len(DOORS) * len(CONCURRENCY) :])}",
            file=sys.stderr,
            flush=True,
        )
    return runs


def _ratios(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Medians over the rounds of ours divided by theirs."""
    found = {(run["concurrency"], run["round"], run["door"]): run for run in runs}
    rounds = sorted({run["round"] for run in runs})
    return {
        f"{door}_{measure}_ratio_{concurrency}": round(
            median(
                found[concurrency, number, door][key] / found[concurrency, number, "vllm"][key]
                for number in rounds
            ),
            3,
        )
        for concurrency in CONCURRENCY
        for measure, key in (("rps", "rps"), ("ttft", "ttft_p50"))
        for door in DOORS[:2]
        if rounds
    }


def _show(runs: Sequence[dict[str, Any]]) -> None:
    for concurrency in CONCURRENCY:
        for door in DOORS:
            mine = [run for run in runs if (run["concurrency"], run["door"]) == (concurrency, door)]
            print(
                f"at {concurrency:2} {door:6}"
                f" {median(run['rps'] for run in mine):7.1f} requests/s,"
                f" first token {1e3 * median(run['ttft_p50'] for run in mine):7.1f} ms,"
                f" p99 {1e3 * median(run['ttft_p99'] for run in mine):7.1f} ms,"
                f" {1e3 * median(run['cpu'] for run in mine):5.2f} ms of front-end CPU a request,"
                f" {median(run['tokens'] for run in mine):.1f} tokens an answer,"
                f" {median(run['events'] for run in mine):.1f} events"
            )


# The servers


@contextlib.contextmanager
def _servers(scratch: Path, options: argparse.Namespace) -> Iterator[dict[str, _Client]]:
    """Both of them; gives the clients that load them, by door."""
    flags = generator_flags(
        scratch,
        model=str(options.model.absolute()),
        model_name=MODEL,
        stream_interval=options.stream_interval,
        log_level="warning",
    )
    with contextlib.ExitStack() as held:
        ours = held.enter_context(generator(flags))
        theirs = held.enter_context(_vllm(flags, scratch / "vllm.log"))
        targets = {
            "grpc": (ours["grpc"], ours["pid"]),
            "openai": (ours["openai"], ours["pid"]),
            "vllm": (theirs["url"], theirs["pid"]),
        }
        yield {door: held.enter_context(_client(door, *targets[door])) for door in DOORS}


@contextlib.contextmanager
def _vllm(flags: dict[str, Any], log: Path) -> Iterator[dict[str, Any]]:
    """vLLM's own server with the very arguments that the service gives to its engine."""
    told = environment(threads=flags["threads"], verbose=False) | {"TORCHDYNAMO_DISABLE": "1"}
    os.environ.update(told)
    settings = GeneratorSettings(**flags)
    port = _free_port()
    arguments = [
        *_vllm_arguments(engine_options(settings, Path(settings.model))),
        "--host=127.0.0.1",
        f"--port={port}",
        "--disable-uvicorn-access-log",
        "--uvicorn-log-level=error",
    ]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments]
    url = f"http://127.0.0.1:{port}"
    with server(command, log, lambda: _answers(f"{url}/health")) as process:
        yield {"url": f"{url}/v1", "pid": process}


def _vllm_arguments(options: Any) -> Iterator[str]:
    # Late: vLLM reads the environment when it is imported.
    from tuneproof_generator.engine.arguments import engine_arguments

    chosen = engine_arguments(options)
    for field in dataclasses.fields(chosen):
        value, name = getattr(chosen, field.name), field.name.replace("_", "-")
        is_default = field.default is not dataclasses.MISSING and value == field.default
        if is_default or field.default_factory is not dataclasses.MISSING:
            continue
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        else:
            yield f"--{name}={value[0] if isinstance(value, list) else value}"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# The clients, each in a process of its own


class _Client:
    def __init__(self, process: subprocess.Popen[str], front_end: int) -> None:
        self._process = process
        self._front_end = psutil.Process(front_end)

    def load(self, seed: str, concurrency: int, requests: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        before = self._front_end.cpu_times()
        order = {"seed": seed, "concurrency": concurrency, "requests": requests}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a client ended; its message stands above")
        found: dict[str, Any] = json.loads(line)
        after = self._front_end.cpu_times()
        spent = after.user + after.system - before.user - before.system
        return {**found, "cpu": spent / requests}


@contextlib.contextmanager
def _client(door: str, target: str, front_end: int) -> Iterator[_Client]:
    command = [sys.executable, __file__.replace("doors.py", "doors_client.py"), door, target]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        yield _Client(process, front_end)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(30)


if __name__ == "__main__":
    main()
