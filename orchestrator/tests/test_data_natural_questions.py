"""Natural Questions in both of its forms: made files for each rule, and a long one."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from itertools import permutations

import pytest
from data_files import PAGE, annotation, lines, load, original, simplified, span
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.data.items import UNANSWERABLE
from tuneproof.data.loaders.nq_examples import read_example
from tuneproof.servicekit.errors import InvalidInput

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]

PARAGRAPH, LIST = span("<P>", "</P>"), span("<Ul>", "</Ul>")
SMALL_ONE, WEEKS = span("a", "one"), span("3", "weeks")
SMALL_ONE = {
    "start_token": PAGE.split(" ").index("small"),
    "end_token": PAGE.split(" ").index("one") + 1,
}


def nq(*paths, **more):
    return load({"name": "natural-questions", "path": [str(path) for path in paths], **more})


def test_texts_are_without_tags_and_spans_end_before_their_end(tmp_path):
    example = simplified(5, annotation(PARAGRAPH, SMALL_ONE))
    dataset = nq(lines(tmp_path / "nq.jsonl", example))
    (item,), (page,) = dataset.items, dataset.documents
    assert item.id == "nq:5"
    assert item.references == {
        "full": ("Moss is a plant (a small one). It grows in 3 weeks.",),
        "short": ("small one",),
    }
    assert page.text == (
        "Moss\nMoss is a plant (a small one). It grows in 3 weeks.\nPart | Size\nLeaf | 2 mm\n"
        "It has no roots,\nnor flowers."
    )
    assert (page.title, item.cluster) == ("Moss (plant)", "Moss (plant)")
    assert page.id.endswith("title=Moss_%28plant%29&oldid=12")
    assert (item.gold_documents, item.gold_texts) == ((page.id,), item.references["full"])
    assert not dataset.gold_only


def test_the_original_and_the_simplified_form_give_the_same(tmp_path):
    examples = [
        simplified(1, annotation(PARAGRAPH, SMALL_ONE, WEEKS)),
        simplified(2, annotation(LIST, yes_no="NO")),
        simplified(3, annotation()),
        simplified(4),
    ]
    plain = lines(tmp_path / "simplified-nq-train.jsonl", *examples)
    packed = lines(tmp_path / "v1.0-train-00.jsonl.gz", *map(original, examples))
    for more in ({}, {"documents": "paragraphs"}, {"unanswerable": True}):
        assert nq(plain, **more) == nq(packed, **more)


def test_several_short_answers_are_one_reference_and_no_is_an_answer(tmp_path):
    examples = [
        simplified(1, annotation(PARAGRAPH, SMALL_ONE, WEEKS)),
        simplified(2, annotation(LIST, yes_no="NO")),
        simplified(3, annotation(LIST)),
    ]
    first, second, third = nq(lines(tmp_path / "nq.jsonl", *examples)).items
    assert first.references["short"] == ("small one, 3 weeks",)
    assert second.references["short"] == ("no",)
    assert set(third.references) == {"full"}


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ((annotation(),), False),
        ((annotation(LIST),), True),
        ((annotation(LIST), *[annotation()] * 4), False),
        ((annotation(LIST), annotation(PARAGRAPH), *[annotation()] * 3), True),
    ],
)
def test_a_question_is_answerable_when_two_of_several_annotators_answer(
    tmp_path, annotations, expected
):
    file = lines(
        tmp_path / "nq.jsonl", simplified(1, *annotations), simplified(2, annotation(LIST))
    )
    item, _ = nq(file, unanswerable=True).items
    assert item.answerable is expected
    if not expected:
        assert item.references == dict.fromkeys(("full", "short"), (UNANSWERABLE,))
        assert item.gold_documents == item.gold_texts == ()
    dataset = nq(file)
    assert dataset.left_out == ({} if expected else {"unanswerable": 1})
    assert len(dataset.items) == (2 if expected else 1)


def test_what_most_annotators_say_comes_first(tmp_path):
    given = [
        annotation(LIST, WEEKS),
        annotation(PARAGRAPH, SMALL_ONE),
        annotation(PARAGRAPH, SMALL_ONE),
    ]
    (item,) = nq(lines(tmp_path / "nq.jsonl", simplified(1, *given))).items
    assert item.references["short"] == ("small one", "3 weeks")
    assert [text[:4] for text in item.references["full"]] == ["Moss", "It h"]
    assert len(item.gold_texts) == 2


def test_paragraphs_as_documents(tmp_path):
    item_of_list = span("<Li>", "</Li>")
    file = lines(tmp_path / "nq.jsonl", simplified(1, annotation(item_of_list)))
    dataset = nq(file, documents="paragraphs")
    (item,) = dataset.items
    texts = {document.id: document.text for document in dataset.documents}
    assert list(texts.values()) == [
        "Moss is a plant (a small one). It grows in 3 weeks.",
        "Part | Size\nLeaf | 2 mm",
        "It has no roots,\nnor flowers.",
    ]
    assert [texts[name] for name in item.gold_documents] == ["It has no roots,\nnor flowers."]
    assert item.gold_texts == ("It has no roots,",)


def test_a_test_file_without_annotations_has_no_question_to_offer(tmp_path):
    file = lines(tmp_path / "nq.jsonl", simplified(1))
    with pytest.raises(InvalidInput, match=r"no question that .*; left out: 1 without an"):
        nq(file)


def test_the_draw_depends_on_the_seed_alone_and_larger_draws_hold_smaller_ones(tmp_path):
    examples = [simplified(n, annotation(LIST)) for n in range(30)]
    files = [lines(tmp_path / f"{n}.jsonl", *examples[n::3]) for n in range(3)]
    drawn = [nq(*order, items=10, seed=4) for order in permutations(files)]
    assert all(each == drawn[0] for each in drawn)
    assert drawn[0].left_out == {"passed over by the draw": 20}
    ids = {n: {item.id for item in nq(*files, items=n, seed=4).items} for n in (5, 10, 20, 30, 40)}
    assert [len(found) for found in ids.values()] == [5, 10, 20, 30, 30]
    assert ids[5] < ids[10] < ids[20] < ids[30] == ids[40]
    assert {item.id for item in nq(*files, items=10, seed=5).items} != ids[10]
    counts = [0] * 30
    for seed in range(200):
        for item in nq(*files, items=10, seed=seed).items:
            counts[int(item.id[3:])] += 1
    assert 40 < min(counts) <= max(counts) < 95, "each is drawn a third of the time"


def test_the_draw_is_among_the_wanted_questions(tmp_path):
    examples = [
        simplified(n, annotation(LIST, WEEKS) if n % 5 == 0 else annotation(LIST))
        for n in range(50)
    ]
    file = lines(tmp_path / "nq.jsonl", *examples)
    dataset = nq(file, items=8, styles=["full", "short"])
    assert len(dataset.items) == 8
    assert all(item.references["short"] for item in dataset.items)
    assert sum(dataset.left_out.values()) == 42


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"{", r"line 2: Invalid JSON: EOF"),
        (b"[]", r"line 2: Input should be an object"),
        (b"\xff", r"line 2: is not UTF-8"),
        (b'{"example_id": 1}', r"line 2: question_text: Field required"),
        (b'{"example_id": 1, "question_text": "q"}', "lacks document_tokens, and document_text"),
        (
            simplified(2, annotation({"start_token": 3, "end_token": 999})),
            r"annotations.0.long_answer: from token 3 to 999 is no part of the \d+ tokens",
        ),
        (
            simplified(2, annotation(LIST, {"start_token": 4, "end_token": 4})),
            r"annotations.0.short_answers.0: from token 4 to 4",
        ),
        (simplified(2, annotation({"start_token": -5, "end_token": 4})), "from token -5"),
        (
            simplified(2, {"long_answer": {"start_token": "x"}}),
            r"annotations.0.long_answer.start_token: .*and 1 more",
        ),
        (simplified(2, annotation(LIST), question_text=" "), "question_text is blank"),
        (simplified(1, annotation(LIST)), "nq:1 is that of an earlier line"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_field(tmp_path, line, what):
    file = lines(tmp_path / "nq.jsonl", simplified(1, annotation(LIST)))
    with file.open("ab") as more:
        more.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
    with pytest.raises(InvalidInput, match=what) as caught:
        nq(file)
    assert "nq.jsonl, line 2" in caught.value.message


def test_packed_data_that_are_cut_off_are_noticed(tmp_path):
    whole = gzip.compress(
        b"".join(json.dumps(simplified(n, annotation(LIST))).encode() + b"\n" for n in range(400))
    )
    file = tmp_path / "v1.0-train-00.jsonl.gz"
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInput, match=r"train-00.jsonl.gz, after line \d+: .*cut off"):
        nq(file)
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(InvalidInput, match=r"after line 0: its gzip data are broken"):
        nq(file)


def test_a_long_file_is_read_in_bounded_memory(tmp_path):
    filler = " ".join(["<P>", *(f"word{n}" for n in range(4000)), "</P>"])
    example = original(simplified(1, annotation(LIST), page=f"{PAGE} {filler}"))
    text = json.dumps(example)
    assert len(text) > 300_000
    file = tmp_path / "v1.0-train-00.jsonl.gz"
    with gzip.open(file, "wt", compresslevel=1) as out:
        for number in range(200):  # 70 MB
            out.write(text.replace('"example_id": 1', f'"example_id": {number}') + "\n")
    tracemalloc.start()
    try:
        dataset = nq(file, items=20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(dataset.items) == 20
    assert peak < 20_000_000


WORDS = st.sampled_from(["moss", ",", "(", ")", ".", "<", "a", "'s", "n't", "%", "{", "3", ""])


@st.composite
def pages(draw):
    """Blocks of a page, and the cut of one of them."""
    blocks = draw(
        st.lists(
            st.tuples(st.sampled_from(["P", "Li", "Tr", "Ul"]), st.lists(WORDS, max_size=6)),
            min_size=1,
            max_size=5,
        )
    )
    tokens, cuts = [], []
    for tag, words in blocks:
        cuts.append((len(tokens), len(tokens) + len(words) + 2))
        tokens += [f"<{tag}>", *words, f"</{tag}>"]
    return tokens, draw(st.sampled_from(cuts))


@given(pages())
def test_the_text_of_a_part_stands_in_the_text_of_the_page(made):
    tokens, (start, end) = made
    long = {"start_token": start, "end_token": end}
    example = simplified(1, annotation(long), page=" ".join(tokens), long_answer_candidates=[])
    found = read_example(json.dumps(example), "here")
    part, page = found.text((start, end)), found.text((0, len(tokens)))
    assert part in page
    assert "<P>" not in page
    again = read_example(json.dumps(original(example)), "here")
    assert again.words == found.words or "<" in tokens
