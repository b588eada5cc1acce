"""Commit, list, fetch: on a folder and on a store that fsspec reaches."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from tuneproof.adapters import AdapterRef, BaseIdentity, FolderStorage, Registry, identify_base
from tuneproof.servicekit.errors import Corrupted, InvalidInput, NotFound

Adapters = Callable[..., Path]
FILES = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "manifest.json",
    "provenance.json",
}


@pytest.fixture
def base(base_folder: Path) -> BaseIdentity:
    return identify_base(base_folder)


@pytest.fixture(params=["folder", "file", "remote"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "remote":
        fsspec.filesystem("memory").store.clear()
        return f"memory://{tmp_path.name}/store"
    return str(tmp_path / "store") if request.param == "folder" else f"file://{tmp_path}/store"


def commit(registry: Registry, folder: Path, base: BaseIdentity, name: str = "short") -> AdapterRef:
    return registry.commit(folder, name=name, base=base, provenance={"run_id": "r1"})


def test_what_is_committed_is_listed_and_fetched(
    url: str, make_adapter: Adapters, base: BaseIdentity, tmp_path: Path
) -> None:
    registry, folder = Registry(url), make_adapter()
    assert registry.list() == ()
    ref = commit(registry, folder, base)
    assert registry.list() == (ref,) == Registry(url).list("short")
    assert registry.list("long") == ()
    fetched = registry.fetch(ref, tmp_path / "cache")
    assert {path.name for path in fetched.iterdir()} == FILES
    for file in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        assert (fetched / file).read_bytes() == (folder / file).read_bytes()
    digest = hashlib.sha256((fetched / "manifest.json").read_bytes()).hexdigest()
    assert ref.digest == f"sha256:{digest}"
    assert registry.manifest(ref).base == base
    assert registry.provenance(ref).details == {"run_id": "r1"}
    assert registry.provenance(ref).adapter == ref


def test_committing_again_changes_nothing(
    url: str, make_adapter: Adapters, base: BaseIdentity
) -> None:
    registry, folder = Registry(url), make_adapter()
    first = commit(registry, folder, base)
    again = registry.commit(folder, name="short", base=base, provenance={"run_id": "r2"})
    assert again == first
    assert registry.list() == (first,)
    assert registry.provenance(first).details == {"run_id": "r1"}


def test_new_content_under_a_name_is_a_second_adapter(
    tmp_path: Path, make_adapter: Adapters, base: BaseIdentity
) -> None:
    registry = Registry(str(tmp_path / "store"))
    one = commit(registry, make_adapter(), base)
    other = commit(registry, make_adapter(config={"lora_alpha": 16}), base)
    assert one.digest != other.digest
    assert set(registry.list("short")) == {one, other}


def test_litter_is_not_listed(tmp_path: Path, make_adapter: Adapters, base: BaseIdentity) -> None:
    registry = Registry(str(tmp_path / "store"))
    ref = commit(registry, make_adapter(), base)
    (tmp_path / "store/adapters/short/notes").mkdir()
    (tmp_path / "store/adapters/short/notes/manifest.json").write_text("{}")
    (tmp_path / "store/adapters/.hidden").mkdir()
    assert registry.list() == (ref,)


class _Dies(BaseException):
    """Stands for the process's end: no handler of ours may catch it."""


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_at_any_write_leaves_nothing_listed(
    call: str,
    tmp_path: Path,
    make_adapter: Adapters,
    base: BaseIdentity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, owner = make_adapter(), os if call == "fsync" else Path
    real = getattr(owner, call)
    crashes = 0
    for survivors in range(100):
        left = survivors
        registry = Registry(str(tmp_path / f"store-{survivors}"))

        def dying(*args: object, **kwargs: object) -> object:
            nonlocal left
            if left == 0:
                raise _Dies
            left -= 1
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, call, dying)
            try:
                ref = commit(registry, folder, base)
            except _Dies:
                crashes += 1
            else:
                break
        listed = registry.list()
        # Only a crash after the manifest's rename may leave it listed, and then it is whole.
        for ref in listed:
            registry.fetch(ref, tmp_path / f"cache-{survivors}")
        assert not listed or call == "fsync"
        assert registry.list() == listed
        assert commit(registry, folder, base) in registry.list()
    assert registry.list() == (ref,)
    assert crashes >= 5


def test_a_crash_at_any_object_leaves_nothing_listed(
    tmp_path: Path, make_adapter: Adapters, base: BaseIdentity
) -> None:
    class Dying(FolderStorage):
        left = 0

        def upload(self, source: Path, path: str) -> None:
            self._spend()
            super().upload(source, path)

        def write(self, path: str, data: bytes) -> None:
            self._spend()
            super().write(path, data)

        def _spend(self) -> None:
            if self.left == 0:
                raise _Dies
            self.left -= 1

    folder = make_adapter()
    for survivors in range(5):
        storage = Dying(tmp_path / f"store-{survivors}")
        storage.left = survivors
        registry = Registry("unused", storage=storage)
        with pytest.raises(_Dies):
            commit(registry, folder, base)
        assert registry.list() == ()
        storage.left = 5
        assert registry.list() == ()
        ref = commit(registry, folder, base)
        assert registry.list() == (ref,)


def test_a_flipped_bit_in_the_store_names_the_tensor(
    tmp_path: Path, make_adapter: Adapters, base: BaseIdentity
) -> None:
    registry = Registry(str(tmp_path / "store"))
    ref = commit(registry, make_adapter(), base)
    _flip_last_bit(tmp_path / "store/adapters/short" / ref.hex / "adapter_model.safetensors")
    with pytest.raises(Corrupted, match=r"tensor base_model\.model\.model\.layers\.\d\.self_attn"):
        registry.fetch(ref, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_cache_gone_bad_is_replaced(
    tmp_path: Path, make_adapter: Adapters, base: BaseIdentity
) -> None:
    registry, folder = Registry(str(tmp_path / "store")), make_adapter()
    ref = commit(registry, folder, base)
    weights = registry.fetch(ref, tmp_path / "cache") / "adapter_model.safetensors"
    _flip_last_bit(weights)
    assert registry.fetch(ref, tmp_path / "cache") == weights.parent
    assert weights.read_bytes() == (folder / "adapter_model.safetensors").read_bytes()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [ref.hex]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("manifest.json", b"{}", "has the digest"),
        ("adapter_config.json", b'{"peft_type": "LORA"}', r"adapter_config\.json is not what"),
        ("adapter_model.safetensors", b"\x08\0\0\0\0\0\0\0", "cut off"),
        ("adapter_model.safetensors", None, "is missing"),
        ("adapter_model.safetensors", b"0" * (17 << 20), "above the limit"),
    ],
)
def test_an_altered_store_is_told(  # noqa: PLR0917
    file: str,
    content: bytes | None,
    said: str,
    make_adapter: Adapters,
    base: BaseIdentity,
    tmp_path: Path,
) -> None:
    registry = Registry(str(tmp_path / "store"))
    ref = commit(registry, make_adapter(), base)
    path = tmp_path / "store/adapters/short" / ref.hex / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(Corrupted, match=said):
        registry.fetch(ref, tmp_path / "cache")


def test_an_unknown_adapter_is_not_found(url: str, tmp_path: Path) -> None:
    ref = AdapterRef("short", "sha256:" + "0" * 64)
    for ask in (Registry(url).manifest, Registry(url).provenance):
        with pytest.raises(NotFound, match="no adapter short@sha256"):
            ask(ref)
    with pytest.raises(NotFound, match="no adapter short@sha256"):
        Registry(url).fetch(ref, tmp_path / "cache")


def test_many_fetch_one_adapter_at_once(
    tmp_path: Path, make_adapter: Adapters, base: BaseIdentity
) -> None:
    registry = Registry(str(tmp_path / "store"))
    ref = commit(registry, make_adapter(), base)
    with ThreadPoolExecutor(8) as pool:
        places = set(pool.map(lambda _: registry.fetch(ref, tmp_path / "cache"), range(16)))
    assert places == {tmp_path / "cache" / ref.hex}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [ref.hex]


def test_bad_input_is_told(tmp_path: Path, make_adapter: Adapters, base: BaseIdentity) -> None:
    with pytest.raises(InvalidInput, match="cannot open nowhere"):
        Registry("nowhere://x")
    with pytest.raises(InvalidInput, match="beginning with a letter"):
        commit(Registry(str(tmp_path)), make_adapter(), base, name="../up")
    with pytest.raises(InvalidInput, match=r"no adapter_model\.safetensors in"):
        commit(Registry(str(tmp_path)), tmp_path / "empty", base)


def _flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
