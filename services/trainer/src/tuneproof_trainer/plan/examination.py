"""The look at a run's data by a process of its own, which knows the base's tokenizer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from tuneproof.servicekit.errors import Internal, InvalidInput, Unavailable
from tuneproof_trainer.plan.checks import Finding
from tuneproof_trainer.spec import RunSpec

_SAID = 400


class Request(BaseModel, frozen=True, extra="forbid"):
    """What the process gets."""

    spec: RunSpec
    """With every default filled in."""
    base_folder: str
    artifacts: str
    """URL of the artifact store."""
    preview_lines: tuple[int, ...] = ()
    """Empty: the first example."""


@dataclass(frozen=True)
class Piece:
    """A token."""

    token_id: int
    text: str
    learned: bool
    """Whether the loss sees it."""


@dataclass(frozen=True)
class Preview:
    """An example as tokens."""

    line: int
    pieces: list[Piece]


@dataclass(frozen=True)
class Examined:
    """What the data is as tokens. Counts are over the examples that are trained on."""

    lengths: list[int]
    """Tokens of each example."""
    answers: list[int]
    """Of these, the tokens that the loss sees."""
    validation_examples: int = 0
    dropped_examples: int = 0
    """Those that are too long, whether they are left out or refused."""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    findings: list[Finding] = field(default_factory=list)
    previews: list[Preview] = field(default_factory=list)


class Examiner:
    """Starts the processes, one after the other.

    Args:
        seconds: after which one is ended.
    """

    def __init__(self, seconds: float = 300.0) -> None:
        self._seconds = seconds
        self._place = asyncio.Semaphore(1)

    async def examine(self, request: Request) -> Examined:
        """What a spec's data is as tokens.

        Raises:
            InvalidInput: when the data cannot be read, or the base has no chat template.
            Unavailable: when the artifact store does not answer, or the time is over.
        """
        async with self._place:
            content = await self._ask(request)
        if "error" in content:
            if content["field"]:
                raise InvalidInput(content["error"], field=content["field"])
            raise Unavailable(content["error"])
        return _examined(content)

    async def _ask(self, request: Request) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tuneproof_trainer.worker.examine",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._seconds):
                out, said = await process.communicate(request.model_dump_json().encode())
        except TimeoutError:
            raise Unavailable(
                f"the data was not examined within {self._seconds:g} s; give fewer examples, or"
                " create the run without a plan"
            ) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        lines = out.decode(errors="replace").strip().splitlines()
        if process.returncode or not lines:
            words = said.decode(errors="replace").strip().splitlines()
            last = words[-1][:_SAID] if words else "it said nothing"
            raise Internal(f"the data could not be examined: {last}")
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer


def _examined(content: dict[str, Any]) -> Examined:
    findings = [
        Finding(**(one | {"lines": tuple(one["lines"])})) for one in content.pop("findings")
    ]
    previews = [
        Preview(one["line"], [Piece(**piece) for piece in one["pieces"]])
        for one in content.pop("previews")
    ]
    return Examined(**content, findings=findings, previews=previews)
