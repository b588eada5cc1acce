"""What is found in data: rows, divisions, duplicates, leaks, speeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.adapters import FolderStorage
from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.digests import sha256_of_bytes
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.data import Example, divide_examples, parse_examples
from tuneproof_trainer.examples import load_for_training, read_examples
from tuneproof_trainer.plan.checks import (
    find_duplicates,
    find_shared,
    leaks,
    parse_held_out,
    text_hash,
)
from tuneproof_trainer.plan.packing import pack, padding
from tuneproof_trainer.plan.rates import rate_for
from tuneproof_trainer.spec import RunSpec

Data = Callable[..., dict[str, str]]


def example(prompt: str, answer: str = "w2", line: int = 1, **more: str) -> Example:
    said = ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer})
    return Example(line, said, **more)


LENGTHS = st.lists(st.integers(1, 64), max_size=60)


@given(lengths=LENGTHS, capacity=st.integers(64, 200))
def test_every_example_is_in_one_row_and_no_row_is_too_long(
    lengths: list[int], capacity: int
) -> None:
    rows = pack(lengths, capacity)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    filled = [sum(lengths[place] for place in row) for row in rows]
    assert all(0 < each <= capacity for each in filled)
    # Best fit leaves at most one row half empty.
    assert sum(each <= capacity / 2 for each in filled) <= 1


def test_rows_are_filled_best_fit_first() -> None:
    assert pack([30, 50, 64, 34, 14], 64) == [[2], [1, 4], [3, 0]]


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40), size=st.integers(1, 16))
def test_padding_is_what_the_longest_of_a_batch_asks_for(lengths: list[int], size: int) -> None:
    found = padding(lengths, size, 3)
    assert 0 <= found < max(lengths) * len(lengths)
    assert found == 0 if size == 1 or len(set(lengths)) == 1 else found >= 0


@given(
    prompts=st.lists(st.sampled_from("abcdefghij"), min_size=2, max_size=40),
    share=st.floats(0.01, 0.99),
    order=st.randoms(use_true_random=False),
)
def test_the_same_prompt_is_on_one_side_whatever_the_order(
    prompts: list[str], share: float, order: Any
) -> None:
    examples = [example(prompt, str(line), line) for line, prompt in enumerate(prompts, 1)]
    if len(set(prompts)) < 2:
        with pytest.raises(InvalidInput, match="two different prompts"):
            divide_examples(examples, share)
        return
    training, validation = divide_examples(examples, share)
    assert training
    assert validation
    assert sorted([*training, *validation], key=lambda each: each.line) == examples
    seen = {each.messages[0]["content"] for each in training}
    assert not seen & {each.messages[0]["content"] for each in validation}
    mixed = list(examples)
    order.shuffle(mixed)
    assert {each.line for each in divide_examples(mixed, share)[1]} == {
        each.line for each in validation
    }


def test_a_share_is_about_met() -> None:
    examples = [example(f"question {line}", line=line) for line in range(1, 201)]
    training, validation = divide_examples(examples, 0.1)
    assert (len(training), len(validation)) == (180, 20)


def test_duplicates_and_answers_that_disagree_are_told_by_line() -> None:
    examples = [
        example("a", "one", 1),
        example("a", "one", 2),
        example("b", "one", 3),
        example("b", "two", 5),
        example("b", " Two", 6),
    ]
    found = {each.code: each for each in find_duplicates(examples)}
    assert found["duplicate"].lines == (2,)
    assert found["conflicting_answers"].lines == (3, 5)
    assert list(find_duplicates(examples[2:4])) == [found["conflicting_answers"]]
    assert list(find_duplicates(examples[:1])) == []


def test_validation_on_what_is_trained_is_told() -> None:
    (found,) = find_shared([example("a")], [example("a", "other", 4), example("b", line=5)])
    assert (found.lines, found.refused) == ((4,), False)


def test_what_is_held_out_is_found_by_id_text_and_hash() -> None:
    content = b"\n".join(
        json.dumps(each).encode()
        for each in (
            {"id": "q7"},
            {"text": "What is  THIS?"},
            {"sha256": "sha256:" + text_hash("And that?")},
            {"id": 12},
        )
    )
    held_out = parse_held_out(content, "test.jsonl")
    examples = [
        example("x", line=1, id="q7"),
        example("Passages:\nnothing\nQuestion: what is this?", line=2),
        example("y", "and  that?", line=3),
        example("z", line=4, id="12"),
        example("What is this, and that?", line=5, id="q8"),
    ]
    assert [line for line, _ in leaks(examples, held_out)] == [1, 2, 3, 4]


def test_wrong_lines_of_held_out_items_are_told() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_held_out(b'{"id": "a"}\n\n{\n[1]\n{"question": "x"}\n{"text": ["x"]}', "t.jsonl")
    told = caught.value.message
    assert told.startswith("t.jsonl: line 3 is not JSON")
    assert "line 4 is not a JSON object" in told
    assert 'line 5 has none of "id", "text" and "sha256"' in told
    assert "line 6 has none of" in told
    assert caught.value.field == "spec.held_out.path"


def held(artifacts: Path, content: bytes, data: dict[str, str], **more: Any) -> RunSpec:
    (artifacts / "held.jsonl").write_bytes(content)
    return RunSpec(
        data_path=data["path"],
        data_digest=data["digest"],
        held_out_path="held.jsonl",
        held_out_digest=sha256_of_bytes(content),
        **more,
    )


def test_leaks_are_refused_unless_they_are_allowed(artifacts: Path, write_data: Data) -> None:
    store, data = FolderStorage(artifacts), write_data(count=4)
    first = parse_examples((artifacts / data["path"]).read_bytes(), "x")[0].messages[0]["content"]
    content = json.dumps({"text": first}).encode()
    with pytest.raises(InvalidInput, match=r"line 1 has the text of a held-out item; take these"):
        load_for_training(store, held(artifacts, content, data))
    allowed = load_for_training(store, held(artifacts, content, data, allow_leakage=True))
    assert len(allowed.training) == 4
    assert load_for_training(store, held(artifacts, b'{"id": "other"}', data)).training
    changed = held(artifacts, b"{}", data)
    (artifacts / "held.jsonl").write_bytes(b'{"id": "x"}')
    with pytest.raises(InvalidInput, match=r"the held_out at held\.jsonl has the digest"):
        load_for_training(store, changed)


def test_examples_for_validation_come_from_a_share_or_a_file(
    artifacts: Path, write_data: Data
) -> None:
    store, data = FolderStorage(artifacts), write_data(count=20)
    spec = RunSpec(
        data_path=data["path"],
        data_digest=data["digest"],
        hyperparameters=Hyperparameters(validation_share=0.25),
    )
    shared = read_examples(store, spec)
    assert (len(shared.training), len(shared.validation)) == (15, 5)
    content = (artifacts / data["path"]).read_bytes().splitlines()[0]
    (artifacts / "v.jsonl").write_bytes(content)
    file = {"validation_path": "v.jsonl", "validation_digest": sha256_of_bytes(content)}
    own = read_examples(
        store, spec.model_copy(update=file | {"hyperparameters": Hyperparameters()})
    )
    assert (len(own.training), len(own.validation)) == (20, 1)
    missing = spec.model_copy(update=file | {"validation_path": "none.jsonl"})
    with pytest.raises(InvalidInput, match=r"no validation at none\.jsonl") as caught:
        read_examples(store, missing)
    assert caught.value.field == "spec.validation.path"


def facts(**more: str) -> dict[str, str]:
    return {
        "base_model": "b",
        "method": "qlora_nf4",
        "device": "cpu",
        "hyperparameters": Hyperparameters(effective_batch_size=8).model_dump_json(),
        "examples": "20",
        "prompt_tokens": "900",
        "answer_tokens": "100",
        "steps": "6",
        "train_seconds": "10",
        "load_seconds": "2",
        **more,
    }


def test_a_speed_is_that_of_earlier_runs_like_it() -> None:
    spec = RunSpec(base_model="b", hyperparameters=Hyperparameters())
    # 3 steps a pass, so 6 steps read 1,000 tokens twice: 200 tokens/s.
    found = rate_for(spec, [facts(), facts(train_seconds="5"), facts(train_seconds="20")], "cpu")
    assert found is not None
    assert (found.tokens_per_second, found.runs) == (200, 3)
    assert found.seconds(1000) == 7
    others = [
        facts(base_model="c"),
        facts(method="lora"),
        facts(device="gpu"),
        facts(hyperparameters="{"),
        facts(steps="0"),
        {},
    ]
    assert rate_for(spec, others, "cpu") is None
