"""Small objects and files: on a folder and on a store that fsspec reaches; in bounded time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tuneproof.adapters import BoundedStore, FolderStorage, RemoteStorage, Storage
from tuneproof.servicekit.errors import NotFound, Unavailable


class Failing(FolderStorage):
    """Fails while `error` is set, and does something before each call."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.error: Exception | None = None
        self.before: Callable[[], object] = lambda: None
        self.calls = 0

    def _at(self, path: str) -> Path:
        self.calls += 1
        if self.error:
            raise self.error
        self.before()
        return super()._at(path)


@pytest.fixture(params=["folder", "remote"])
def store(request, tmp_path) -> Storage:
    if request.param == "folder":
        return FolderStorage(tmp_path)
    return RemoteStorage(f"memory://{tmp_path}")


def test_of_two_who_create_an_object_one_wins(store) -> None:
    assert store.create("aliases/x/1.json", b"first")
    assert not store.create("aliases/x/1.json", b"second")
    assert store.read("aliases/x/1.json") == b"first"
    assert store.names("aliases/x") == ["1.json"]
    store.delete("aliases/x/1.json")
    store.delete("aliases/x/1.json")
    assert store.names("aliases/x") == []


def test_of_many_who_create_one_object_at_once_one_wins(tmp_path) -> None:
    store = FolderStorage(tmp_path)
    with ThreadPoolExecutor(16) as many:
        made = list(many.map(lambda n: store.create("a/1", str(n).encode()), range(64)))
    assert made.count(True) == 1
    assert store.read("a/1") == str(made.index(True)).encode()
    assert store.names("a") == ["1"], "no draft stays"


def test_files_come_back_as_they_were(store, tmp_path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 8192)
    for _ in range(2):
        store.upload(source, "files/x")
    assert store.size("files/x") == source.stat().st_size
    assert store.size("files/y") is None
    store.download("files/x", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    with pytest.raises(NotFound):
        store.download("files/y", tmp_path / "copy")


def test_calls_that_hang_do_not_pile_up_without_end(tmp_path):
    release = threading.Event()
    inner = Failing(tmp_path)
    inner.before = lambda *_: release.wait()
    store = BoundedStore(inner, 0.001)
    for _ in range(32):
        with pytest.raises(Unavailable, match="no answer"):
            store.read("x")
    with pytest.raises(Unavailable, match="32 calls hang already"):
        store.read("x")
    assert inner.calls == 32
    release.set()
    while True:
        try:
            store.names("x")
            break
        except Unavailable:
            continue


def test_what_a_store_raises_is_unavailable_with_its_reason(tmp_path):
    inner = Failing(tmp_path)
    store = BoundedStore(inner, 5)
    for error, said in (
        (OSError(28, "No space left on device"), "No space left"),
        (RuntimeError("Could not connect to the endpoint URL"), "endpoint URL"),
        (AssertionError(), "AssertionError"),
    ):
        inner.error = error
        with pytest.raises(Unavailable, match=said):
            store.write("aliases/x", b"")
    inner.error = None
    with pytest.raises(NotFound):
        store.read("x")


def test_a_folder_that_is_gone_does_not_look_empty(tmp_path):
    store = FolderStorage(tmp_path / "pool")
    assert store.names("adapters") == []
    store.write("adapters/a/x.json", b"{}")
    assert store.names("adapters") == ["a"]
    (tmp_path / "pool").rename(tmp_path / "away")
    for call in (
        lambda: store.names("adapters"),
        lambda: store.read("adapters/a/x.json"),
        lambda: store.create("aliases/a/1.json", b""),
        lambda: store.write("replicas/a.json", b""),
        lambda: store.delete("adapters/a/x.json"),
    ):
        with pytest.raises(Unavailable, match=r"is gone: .* existed before"):
            call()
    assert not (tmp_path / "pool").exists()
