"""Blocking work that may never end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


def detached(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """Runs a call in a thread of its own.

    It takes no worker from other calls, unlike `asyncio.to_thread`, when it hangs in a dead network
    file system; and the process ends without waiting for it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(outcome: T | None, error: Exception | None) -> None:
        if future.done():
            return  # Nobody waits any more.
        if error is None:
            future.set_result(cast("T", outcome))
        else:
            future.set_exception(error)

    def work() -> None:
        outcome, failure = None, None
        try:
            outcome = context.run(call, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            failure = error
        with suppress(RuntimeError):  # The loop has ended.
            loop.call_soon_threadsafe(settle, outcome, failure)

    threading.Thread(target=work, name=f"detached-{call.__name__}", daemon=True).start()
    return future
