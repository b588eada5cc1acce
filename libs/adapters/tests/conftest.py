"""A base folder and adapter folders as peft writes them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tuneproof.adapters.testing import write_adapter, write_base

# A busy machine is no defect: nothing is asserted about time.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


@pytest.fixture
def base_folder(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    numbers = count()

    def make(*args: Any, **kwargs: Any) -> Path:
        return write_adapter(tmp_path / f"adapter-{next(numbers)}", *args, **kwargs)

    return make
