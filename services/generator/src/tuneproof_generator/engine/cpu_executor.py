"""vLLM's executor on a CPU, with workers that begin with what the engine core has imported.

vLLM (0.32) spawns its workers there: each imports torch and vLLM anew, which is a third of what an
engine's start costs.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext

from vllm.v1.executor import multiproc_executor


class ForkingExecutor(multiproc_executor.MultiprocExecutor):  # type: ignore[misc]  # vLLM is untyped
    """Forks its workers. Until then the engine core has no thread of Python's but its own, and has
    computed nothing: what OpenMP has begun would hang in a fork."""

    def _init_executor(self) -> None:
        multiproc_executor.get_mp_context = _fork
        super()._init_executor()


def _fork() -> BaseContext:
    return multiprocessing.get_context("fork")
