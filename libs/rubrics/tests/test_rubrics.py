"""Rubric files: what is accepted, what each mistake is called, and what a digest depends on."""

from pathlib import Path

import pytest

from tuneproof.rubrics import Rubric, RubricShelf, parse_rubric
from tuneproof.servicekit.errors import InvalidInput, NotFound

MINIMAL = {
    "id": "terse@3",
    "criterion": "terseness",
    "description": "Whether it is short.",
    "scale": {1: "long", 2: "short"},
    "steps": ["Count.", "Compare."],
    "template": "{{reference}}|{{answer}}|{{question}}",
}


BUILT_IN = ["abstention@1", "accuracy@1", "completeness@1", "faithfulness@1", "relevance@1"]


def rubric(**changes: object) -> Rubric:
    return Rubric.model_validate({**MINIMAL, **changes})


def written(**changes: object) -> bytes:
    import yaml

    fields = {name: value for name, value in {**MINIMAL, **changes}.items() if value is not None}
    return yaml.safe_dump(fields).encode()


def test_the_digest_changes_with_every_field_and_not_with_the_order_of_the_file() -> None:
    whole = rubric()
    changed = [
        rubric(**{name: value})
        for name, value in {
            "id": "terse@4",
            "criterion": "other",
            "description": "Another.",
            "scale": {1: "long", 2: "very short"},
            "steps": ["Compare.", "Count."],
            "template": "{{answer}}",
            "max_tokens": 401,
        }.items()
    ]
    assert rubric(unit="stars", decimals=1, low=1, high=2).digest == whole.digest
    assert len({whole.digest, *(each.digest for each in changed)}) == len(changed) + 1
    reordered = parse_rubric(written(scale={2: "short", 1: "long"}), "x.yaml")
    assert reordered.digest == whole.digest


@pytest.mark.parametrize(
    ("changes", "named", "said"),
    [
        ({"scale": {1: "a", 2: "b", 4: "d"}}, "scale", "lacks an anchor for 3"),
        ({"scale": {1: "a"}}, "scale", "two scores"),
        ({"scale": {1: "a", 2: " "}}, "scale", "blank"),
        ({"scale": {"one": "a", 2: "b"}}, "scale", "integer"),
        ({"scale": {-1: "a", 0: "b"}}, "scale", "0 to 100"),
        ({"low": 0}, "scale", "lacks an anchor for 0"),
        ({"low": 1, "high": 3}, "scale", "lacks an anchor for 3"),
        ({"low": 2, "high": 3}, "scale", "has 1, which is outside 2 to 3"),
        ({"low": -1}, "low", "greater than or equal to 0"),
        ({"high": "ten"}, "high", "integer"),
        ({"unit": " "}, "unit", "blank"),
        ({"decimals": -1}, "decimals", "greater than or equal to 0"),
        ({"id": "Terse"}, "id", "a name and a version"),
        ({"criterion": None}, "criterion", "is missing"),
        ({"steps": []}, "steps", "at least 1"),
        ({"template": "{{answer}} {{anwser}}"}, "template", "anwser"),
        ({"template": "{{question}}"}, "template", "{{answer}}"),
        ({"max_tokens": 0}, "max_tokens", "greater"),
        ({"reasoning": "aside"}, "reasoning", "before"),
        ({"form": "Say a number."}, "form", "`Score:`"),
        ({"weight": 2}, "weight", "is not a key of"),
    ],
)
def test_a_bad_field_is_named_with_its_file(
    changes: dict[str, object], named: str, said: str
) -> None:
    with pytest.raises(InvalidInput, match=rf"^terse\.yaml:\d+: {named}") as caught:
        parse_rubric(written(**changes), "terse.yaml")
    assert said in caught.value.message


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_rubric(written(id="?", max_tokens=0, steps=[]), "terse.yaml")
    assert all(name in caught.value.message for name in ("id:", "max_tokens:", "steps:"))


@pytest.mark.parametrize(
    "content", [b"a: [", b"- 1", b"", b"\xff\xfe\x00", b"a: !!python/name:os.x"]
)
def test_what_is_no_mapping_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"terse\.yaml"):
        parse_rubric(content, "terse.yaml")


def test_a_repeated_score_is_refused_rather_than_lost() -> None:
    content = written(scale=None) + b"scale:\n  1: long\n  2: short\n  2: shorter\n"
    with pytest.raises(InvalidInput, match=r"terse\.yaml:\d+: scale\.2: appears twice"):
        parse_rubric(content, "terse.yaml")


def test_a_folder_adds_rubrics_and_may_not_redefine_one(tmp_path: Path) -> None:
    (tmp_path / "terse.yaml").write_bytes(written())
    (tmp_path / "notes.txt").write_text("no rubric")
    ids = [each.id for each in RubricShelf.load(tmp_path)]
    assert ids == [*BUILT_IN, "terse@3"]
    (tmp_path / "mine.yaml").write_bytes(written(id="accuracy@1"))
    with pytest.raises(InvalidInput, match=r"accuracy\.yaml.*accuracy@1|mine\.yaml"):
        RubricShelf.load(tmp_path)


def test_the_mistakes_of_all_files_of_a_folder_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_bytes(written(steps=[]))
    (tmp_path / "two.yaml").write_bytes(written(id="two@0", max_tokens=0))
    (tmp_path / "three.yaml").mkdir()
    with pytest.raises(InvalidInput) as caught:
        RubricShelf.load(tmp_path)
    lines = [line.removeprefix(f"{tmp_path}/") for line in caught.value.message.splitlines()]
    assert [line.split(": ")[:2] for line in lines] == [
        ["one.yaml:7", "steps"],
        ["three.yaml", "cannot be read"],
        ["two.yaml:3", "id"],
        ["two.yaml:4", "max_tokens"],
    ]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere"):
        RubricShelf.load(tmp_path / "nowhere")


def test_an_unknown_rubric_is_answered_with_those_that_exist() -> None:
    with pytest.raises(NotFound, match=r"'clarity@1'.*accuracy@1, completeness@1"):
        RubricShelf.load().get("clarity@1")


def test_a_rubric_knows_its_scale() -> None:
    terse = rubric()
    assert (terse.low, terse.high, terse.unit, terse.decimals) == (1, 2, "points", 2)
    ten = rubric(low=0, high=10, unit="stars", decimals=1, scale={10: "short", 5: "so", 0: "long"})
    assert (ten.low, ten.high, ten.unit, ten.decimals) == (0, 10, "stars", 1)
    assert list(ten.scores) == list(range(11))
    assert list(ten.scale) == [0, 5, 10]
    assert list(rubric(scale={3: "c", 1: "a", 2: "b"}).scores) == [1, 2, 3]


def test_a_rubric_survives_json() -> None:
    for each in (rubric(), rubric(low=0, high=9, scale={0: "long", 9: "short"})):
        again = Rubric.model_validate(each.model_dump(mode="json", by_alias=True))
        assert (again, again.digest) == (each, each.digest)


def test_the_form_follows_the_place_of_the_reasons() -> None:
    for reasoning, first in (("before", "Reasons"), ("after", "Score"), ("none", "Score")):
        form = rubric(reasoning=reasoning, scale={0: "a", 1: "b"}).form
        assert "from 0 to 1" in " ".join(form.split())
        assert form.split("form:\n\n")[1].startswith(first)
    assert rubric(form="Score: n").form == "Score: n"


def test_a_form_counts_in_the_digest_where_the_prompt_holds_it() -> None:
    asked = {"template": "{{answer}} {{form}}"}
    assert rubric(form="Score: n").digest == rubric().digest
    digests = {
        rubric(**asked, **more).digest for more in ({}, {"form": "Score: n"}, {"form": "Score: m"})
    }
    assert len(digests) == 3
    assert rubric(**asked, form=rubric().form).digest == rubric(**asked).digest


def test_the_built_in_rubrics_are_known_by_content() -> None:
    assert [(each.id, each.digest[:15]) for each in RubricShelf.load()] == [
        ("abstention@1", "sha256:98140201"),
        ("accuracy@1", "sha256:f8237231"),
        ("completeness@1", "sha256:b2ca2468"),
        ("faithfulness@1", "sha256:8bb18d5f"),
        ("relevance@1", "sha256:3cebda49"),
    ]
