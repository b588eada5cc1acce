"""Files that one process holds at a time, and who lets go when."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuneproof.servicekit.errors import WrongState
from tuneproof.servicekit.locks import FileLock, Holder, holder_of, locked


def refuse(holder: Holder) -> WrongState:
    return WrongState(f"held by {holder}")


def test_a_held_file_names_its_holder_and_is_free_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    assert holder_of(path) is None
    with locked(path, refuse):
        assert holder_of(path).pid == os.getpid()
        with pytest.raises(WrongState, match=f"held by process {os.getpid()}, since 20"):
            locked(path, refuse).__enter__()
    assert holder_of(path) is None
    with locked(path, refuse):
        pass


@pytest.mark.process
def test_a_child_that_was_given_the_file_holds_it_until_its_end(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    with FileLock(path) as lock:
        assert lock.take()
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(lock.fileno(),),
        )
    with child, FileLock(path) as other:
        assert child.stdout.readline() == b"up\n"
        assert not other.take()
        child.kill()
        child.wait()
        assert other.take()
