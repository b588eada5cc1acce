"""Digests, pages, files, addresses."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.servicekit.digests import (
    canonical_json,
    sha256_of_file,
    sha256_of_json,
    sha256_of_json_list,
)
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.files import write_atomically
from tuneproof.servicekit.paging import page
from tuneproof.servicekit.settings import join_address, split_address

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    backwards = dict(reversed(value.items()))
    assert sha256_of_json(value) == sha256_of_json(backwards)


@given(JSON, JSON)
def test_equal_bytes_mean_equal_values(one: object, other: object) -> None:
    same_bytes = canonical_json(one) == canonical_json(other)
    assert same_bytes == (repr(one) == repr(other) or (one == other and same_bytes))


@given(st.lists(JSON, max_size=5))
def test_a_list_that_is_read_item_by_item_has_the_digest_of_the_whole(values: list[object]) -> None:
    assert sha256_of_json_list(iter(values)) == sha256_of_json(values)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


@given(st.sets(st.text(min_size=1, max_size=4)), st.integers(1, 7))
def test_pages_give_everything_once(keys: set[str], size: int) -> None:
    ordered = sorted(keys)
    seen: list[str] = []
    token = ""
    while True:
        chosen, token = page(ordered, size, token, key=lambda item: item)
        seen += chosen
        if not token:
            break
    assert seen == ordered


def test_a_page_after_a_removal_repeats_nothing() -> None:
    first, token = page(["a", "b", "c"], 2, "", key=str)
    second, _ = page(["a", "c"], 2, token, key=str)
    assert (first, second) == (["a", "b"], ["c"])


@pytest.mark.parametrize(("size", "token"), [(1001, ""), (-1, ""), (1, "§"), (1, "abc")])
def test_bad_pages_are_refused(size: int, token: str) -> None:
    with pytest.raises(InvalidInput):
        page(["a"], size, token, key=str)


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
    assert sha256_of_file(path) == f"sha256:{hashlib.sha256(b'old').hexdigest()}"


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:80", "[::1]:65535", "[::]:1"])
def test_an_address_is_joined_as_it_was_split(address: str) -> None:
    assert join_address(*split_address(address)) == address
