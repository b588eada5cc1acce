"""Imports of large libraries, which are most of what some processes do until they are ready."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast


@contextmanager
def large_imports() -> Iterator[None]:
    """For what is imported meanwhile: nothing of it is garbage, and nobody looks for some."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def leave_out(package: str) -> None:
    """Lets libraries that use an optional package find none; a program does so before it imports
    them."""
    sys.modules.setdefault(package, cast(ModuleType, None))  # As `import` documents it.
