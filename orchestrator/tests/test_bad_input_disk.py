"""A disk that is full, or may not be written: one clear message, and nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import sys

import pytest
from fakes import served
from small_study import SmallStudy, finished

from tuneproof.cli.console import explain_os_error
from tuneproof.servicekit.errors import WrongState
from tuneproof.servicekit.files import write_atomically
from tuneproof.study.state.lock import exclusive
from tuneproof.study.state.store import FILE_NAME, open_state, task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FULL_DATABASE = """
import sqlite3, sys
connect = sqlite3.connect
def limited(*arguments, **settings):
    database = connect(*arguments, **settings)
    database.execute("PRAGMA max_page_count = {pages}")
    return database
sqlite3.connect = limited
"""
"""SQLite's own limit: it ends in the same error as a disk without space."""

FULL_DISK = """
import errno, os
fsync = os.fsync
def refuse(handle):
    if "{part}" in os.readlink(f"/proc/self/fd/{handle}"):
        raise OSError(errno.{name}, os.strerror(errno.{name}))
    fsync(handle)
os.fsync = refuse
"""
"""SQLite does not go through Python's fsync: files fail, the database does not."""


def full_at(pages: int) -> str:
    """A database that takes so many pages of 4 KiB and no more."""
    return FULL_DATABASE.replace("{pages}", str(pages))


def refused(name: str, part: str) -> str:
    """A file system that refuses, with this error, files with this in their paths."""
    return FULL_DISK.replace("{name}", name).replace("{part}", part)


async def patched(patch: str, *arguments: str) -> tuple[int, str, str]:
    """Runs `tuneproof` in a process that was changed before: exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", f"{patch}\nfrom tuneproof.cli.main import main\nmain()"],
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def complaint(err: str) -> str:
    """The one line that tells what went wrong."""
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("tuneproof: ")]
    return line


@pytest.mark.process
async def test_a_study_on_a_full_disk_ends_clearly_and_goes_on_later(tmp_path):
    small = SmallStudy(tmp_path)
    world = small.world()
    command = ["study", "run", str(small.file), "--state", str(small.state)]
    async with served(world) as target:
        small.announce(target)
        code, _, err = await patched(full_at(52), *command)
        assert code == 1
        assert f"{small.state / FILE_NAME}: database or disk is full: free space" in complaint(err)
        assert "give the same command again; what is done is kept" in err
        kept = small.rows()
        assert "answer" in {row[0] for row in kept.values()}
        asked = world.calls["SearchBatch"]

        code, _, err = await finished(*command)
        assert code == 0, err
    after = small.rows()
    assert kept.items() <= after.items()
    assert world.calls["SearchBatch"] == asked


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "part", "file", "advice"),
    [
        ("ENOSPC", "report", "small.html", "No space left on device: free space on that disk"),
        ("EROFS", "report", "small.html", "Read-only file system: name a folder on a disk that"),
        ("EACCES", "dataset", ".jsonl", "Permission denied: name a folder that you may write to"),
    ],
)
async def test_a_file_that_cannot_be_written_is_written_by_the_next_run(
    tmp_path, name, part, file, advice
):
    small = SmallStudy(tmp_path)
    world = small.world()
    command = ["study", "run", str(small.file), "--state", str(small.state)]
    async with served(world) as target:
        small.announce(target)
        code, out, err = await patched(refused(name, f"{part}s/"), *command)
        assert code == 1
        told = complaint(err)
        assert told.startswith(f"tuneproof: {small.state}")
        assert f"{part}s/" in told
        assert f"{file}: {advice}" in told
        assert told.endswith("give the same command again; what is done is kept")
        assert out == ""
        assert [path for path in small.state.rglob(f"*{part}s/*") if path.is_file()] == []
        kept = small.rows()

        code, out, err = await finished(*command)
    assert code == 0, err
    assert kept.items() <= small.rows().items()
    assert (small.state / "reports" / "small.html").exists()


@pytest.mark.process
@pytest.mark.parametrize(
    "command", [["study", "run", "small.yaml"], ["up", "--model", "tiny"]], ids=["run", "up"]
)
async def test_a_state_folder_that_is_a_file_is_told(tmp_path, command, monkeypatch):
    small = SmallStudy(tmp_path)
    small.state.write_text("")
    monkeypatch.chdir(tmp_path)
    code, out, err = await finished(*command, "--state", str(small.state))
    assert code == 1
    assert str(small.state) in complaint(err)
    assert "a file stands where a folder should be" in err
    assert out == ""


@pytest.mark.process
async def test_services_that_cannot_keep_their_ports_are_not_started(tmp_path):
    small = SmallStudy(tmp_path)
    code, _, err = await patched(
        refused("ENOSPC", "ports.json"),
        *("up", "--model", str(tmp_path / "tiny"), "--state", str(small.state)),
    )
    assert code == 1
    assert "ports.json: No space left on device: free space" in complaint(err)
    assert not list((small.state / "services").glob("*.log"))


def test_a_lock_that_cannot_be_made_names_its_file(tmp_path, monkeypatch):
    def refuse(path, *rest, **more):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Read-only") as caught, exclusive(tmp_path):
        pass
    told = explain_os_error(caught.value)
    assert told.startswith(f"{tmp_path / 'state.lock'}: Read-only file system: name a folder")


def put_without_leave(state):
    state._database.execute("PRAGMA query_only = ON")
    state.put(task("answer", {"n": 2}), "lost")


def test_a_database_that_may_not_be_written_is_no_broken_one(tmp_path):
    with open_state(tmp_path, write=True) as state:
        state.put(task("answer", {"n": 1}), "kept")
    with (
        pytest.raises(WrongState, match=rf"{FILE_NAME}: .*readonly.*make it writable"),
        open_state(tmp_path, write=True) as state,
    ):
        put_without_leave(state)
    with open_state(tmp_path, write=False) as state:
        assert state.get(task("answer", {"n": 1}).key) == "kept"
        assert state.get(task("answer", {"n": 2}).key) is None


def test_a_database_that_cannot_be_opened_is_told(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    with (
        pytest.raises(
            WrongState, match=rf"{FILE_NAME}: unable to open .*check its permissions and its disk"
        ),
        open_state(tmp_path, write=True),
    ):
        pass


def test_a_failed_write_names_the_file_and_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fsync(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/s/x"),
            "/s/x: No space left on device: free space on that disk, and give",
        ),
        (OSError(errno.EIO, "Input/output error"), "Input/output error: correct this, and give"),
        (OSError("no network"), "no network: correct this"),
    ],
)
def test_what_the_system_refuses_is_told_with_its_place_and_advice(error, told):
    assert explain_os_error(error).startswith(told)
