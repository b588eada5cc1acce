"""Training data that is wrong, and what is said about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.adapters import FolderStorage
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.data import load_examples, parse_examples

Data = Callable[..., dict[str, str]]
GOOD = {"messages": [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]}
USER = {"role": "user", "content": "w1"}
BAD = [
    (b'{"messages": [', "line 2 is not JSON: "),
    (b"[1, 2]", 'line 2 is not an object with a list "messages"'),
    (b"\xff\xfe", "line 2 is not UTF-8"),
    (b"9" * 5000, "line 2 is not readable JSON"),
    (json.dumps({"messages": [USER]}).encode(), "line 2 does not end with the assistant's message"),
    (b'{"messages": []}', "line 2 does not end with the assistant's message"),
    (
        b'{"messages": [{"role": "assistant", "content": "w1"}]}',
        "line 2 has nothing before the assistant's message",
    ),
    (
        json.dumps({"messages": [USER, {"role": "assistant", "content": " \n"}]}).encode(),
        "line 2 has an empty answer",
    ),
    (
        json.dumps({"messages": [USER, {"role": "bot", "content": "w1"}]}).encode(),
        "line 2 has the role 'bot' in message 2",
    ),
    (
        json.dumps({"messages": [USER, {"role": "assistant", "content": 3}]}).encode(),
        'line 2 lacks "role" or "content" (text) in message 2',
    ),
    (
        json.dumps({"messages": [USER, {"role": "assistant", "content": "\ud800"}]}).encode(),
        "line 2 holds half a character",
    ),
]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_a_bad_line_is_told_with_its_number(line: bytes, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_examples(json.dumps(GOOD).encode() + b"\n" + line + b"\n", "train.jsonl")
    assert caught.value.message.startswith(f"train.jsonl: {said}")


def test_all_bad_lines_are_told_the_first_ten_in_words() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_examples(b"{}\n" * 12, "train.jsonl")
    assert caught.value.message.count("is not an object with a list") == 10
    assert caught.value.message.endswith("; and 2 more")


def test_empty_lines_are_passed_over_but_counted() -> None:
    line = json.dumps(GOOD).encode()
    examples = parse_examples(b"\n" + line + b"\r\n\n" + line, "train.jsonl")
    assert [example.line for example in examples] == [2, 4]
    with pytest.raises(InvalidInput, match=r"train\.jsonl holds no example"):
        parse_examples(b"\n\n", "train.jsonl")


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=5))
def test_any_text_comes_through(contents: list[str]) -> None:
    roles = ["user"] * (len(contents) - 1) + ["assistant"]
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
    for escaped in (True, False):
        line = json.dumps({"messages": messages}, ensure_ascii=escaped)
        assert parse_examples(line.encode(), "x")[0].messages == tuple(messages)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_examples(data, "x")


def test_other_content_than_the_digest_names_is_refused(artifacts: Path, write_data: Data) -> None:
    store, named = FolderStorage(artifacts), write_data()
    assert len(load_examples(store, named["path"], named["digest"])) == 24
    now = write_data(count=23)
    with pytest.raises(
        InvalidInput, match=f"has the digest {now['digest']}, not {named['digest']}"
    ):
        load_examples(store, named["path"], named["digest"])
    with pytest.raises(InvalidInput, match=r"no data at data/none\.jsonl"):
        load_examples(store, "data/none.jsonl", named["digest"])
