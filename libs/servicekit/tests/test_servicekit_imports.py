from __future__ import annotations

import gc
import importlib
import importlib.util
import sys

import pytest

from tuneproof.servicekit.imports import large_imports, leave_out


def test_nobody_looks_for_garbage_while_large_libraries_are_imported() -> None:
    with large_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), large_imports():
        importlib.import_module("nothing_of_this_name")
    assert gc.isenabled()


def test_where_it_was_off_it_stays_off() -> None:
    gc.disable()
    try:
        with large_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_package_that_is_left_out_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "this", gc)  # So that it is taken out again afterwards.
    del sys.modules["this"]
    leave_out("this")
    assert importlib.util.find_spec("this") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("this")


def test_one_that_is_in_use_stays() -> None:
    leave_out("gc")
    assert sys.modules["gc"] is gc
