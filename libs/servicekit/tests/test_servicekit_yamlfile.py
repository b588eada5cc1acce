"""Files that people write: every mistake has its line, and none hides another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.yamlfile import FileKind, Mistake, repeated

NAME = r"^[a-z]+$"


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=1)


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=NAME)
    marks: dict[int, str] = {}
    parts: tuple[Part, ...] = ()


def _contradictions(thing: Thing) -> list[Mistake]:
    return repeated((part.size for part in thing.parts), ("parts",), "size")


THING = FileKind(
    Thing,
    noun="a thing",
    expected="a thing: `name: <word>`",
    patterns={NAME: "expected small letters"},
    contradictions=_contradictions,
)


def mistakes_of(content: str | bytes) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        THING.parse(content, "thing.yaml")
    return caught.value.message.splitlines()


def test_a_right_file_is_read(tmp_path) -> None:
    file = tmp_path / "thing.yaml"
    file.write_text("name: box\nmarks: {1: low}\nparts: [{size: 2}]\n")
    assert THING.load(file) == Thing(name="box", marks={1: "low"}, parts=(Part(size=2),))


def test_all_mistakes_are_told_in_the_order_of_the_lines() -> None:
    text = "\n".join(
        ["name: Box", "marks:", "  1: a", "  1: b", "  one: c", "parts:", "  - size: 0", "lid: 1"]
    )
    number = "Input should be a valid integer, unable to parse string as an integer, got 'one'"
    assert mistakes_of(text) == [
        "thing.yaml:1: name: expected small letters, got 'Box'",
        "thing.yaml:3: marks.1: appears twice",
        f"thing.yaml:5: marks.one: {number}",
        "thing.yaml:7: parts[0].size: Input should be greater than or equal to 1, got 0",
        "thing.yaml:8: lid: is not a key of a thing",
    ]


def test_what_is_missing_is_named_at_the_part_that_lacks_it() -> None:
    assert mistakes_of("parts:\n- {}\n") == [
        "thing.yaml:1: name: is missing",
        "thing.yaml:2: parts[0].size: is missing",
    ]


def test_contradictions_are_sought_in_files_whose_fields_are_right() -> None:
    text = "name: box\nparts: [{size: 1}, {size: 1}]\n"
    assert mistakes_of(text) == ["thing.yaml:2: parts: size 1 appears 2 times"]
    assert "appears" not in "".join(mistakes_of(text.replace("box", "Box")))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "thing.yaml:1: expected a thing: `name: <word>`"),
        ("- a", "thing.yaml:1: expected a thing: `name: <word>`"),
        ("a: [", "thing.yaml:1:5: is not YAML"),
        (b"\xff\xfe\x00", "thing.yaml: is not UTF-8 text (byte 0)"),
        ("a: !!python/name:os.x", "thing.yaml:1:4: is not YAML"),
        ("a: &x [*x]", "thing.yaml:1: a: is not a key"),
        ("a: " + "[" * 5000, "thing.yaml: cannot be read as YAML"),
    ],
)
def test_what_is_no_such_file_is_told_so(content: str | bytes, told: str) -> None:
    assert any(line.startswith(told) for line in mistakes_of(content))


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InvalidInput, match=r"nothing\.yaml: cannot be read: No such file"):
        THING.load(tmp_path / "nothing.yaml")


@given(st.binary(max_size=60))
def test_any_content_is_read_or_refused_with_the_files_name(content: bytes) -> None:
    message = "thing.yaml:"
    try:
        THING.parse(content, "thing.yaml")
    except InvalidInput as error:
        message = error.message
    assert message.startswith("thing.yaml:")
