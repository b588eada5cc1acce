"""Embedding similarity against a scripted server, BERTScore against its definition."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.errors import InvalidInput, Unavailable, WrongState
from tuneproof_judge.grading import Grader
from tuneproof_judge.prompt import Subject
from tuneproof_judge.similarity import BertScore, EmbeddingSimilarity
from tuneproof_judge.task import GradeTask

# The first import of torch and transformers takes long on a loaded machine.
pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

WORDS = ["the", "alder", "power", "is", "46", "40", "dbm", "sends", "it", "with", "band", "seven"]


class Embeddings:
    """A fake of `/v1/embeddings`: a text's vector counts its letters a and b."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.failures: list[int] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        if self.failures:
            status = self.failures.pop(0)
            headers = {"retry-after-ms": "1"}
            return web.json_response({"error": "no"}, status=status, headers=headers)
        texts = self.asked[-1]["input"]
        data = [
            {"object": "embedding", "index": n, "embedding": [text.count("a"), text.count("b")]}
            for n, text in enumerate(texts)
        ]
        return web.json_response({"object": "list", "data": data[::-1], "model": "m"})


@pytest.fixture
async def server() -> AsyncIterator[Embeddings]:
    found = Embeddings()
    app = web.Application()
    app.router.add_post("/v1/embeddings", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield found
    await runner.cleanup()


@pytest.fixture
async def similarity(server: Embeddings) -> AsyncIterator[EmbeddingSimilarity]:
    found = EmbeddingSimilarity(server.url, "m", "", 5.0)
    yield found
    await found.close()


async def test_the_best_cosine_over_the_references_counts(server, similarity) -> None:
    assert await similarity.score("a", ["b", "aab"]) == pytest.approx(2 / 5**0.5)
    assert server.asked == [{"model": "m", "input": ["a", "b", "aab"], "encoding_format": "float"}]
    assert await similarity.score(" ", ["b"]) == 0.0
    assert await similarity.score("no such letter", ["b"]) == 0.0
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("failures", "outcome"),
    [
        ([429, 503], 1.0),
        ([413], None),
        ([401], WrongState),
        ([503] * 9, Unavailable),
    ],
)
async def test_a_server_that_fails_is_no_low_score(
    server, similarity, failures: list[int], outcome: Any
) -> None:
    server.failures = failures
    if outcome in (WrongState, Unavailable):
        with pytest.raises(outcome, match="the embedding server http://127"):
            await similarity.score("a", ["a"])
    else:
        assert await similarity.score("a", ["a"]) == outcome


async def test_a_grade_has_it_beside_the_words(similarity) -> None:
    grader = Grader(RubricShelf.load(), similarities=[similarity])
    words = (await grader.grade(GradeTask(Subject("", "a", ("a b",))))).lexical
    assert words is not None
    assert words.embedding_similarity == pytest.approx(2**-0.5)
    assert (words.bert_score, words.token_f1) == (None, 0.0)
    plain = (await Grader(RubricShelf.load()).grade(GradeTask(Subject("", "a", ("b",))))).lexical
    assert plain is not None
    assert plain.embedding_similarity is None


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with random weights."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder: Path = tmp_path_factory.mktemp("encoder")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).eval().save_pretrained(folder)
    return folder


PAIRS = [
    ("it sends with 46 dbm", ["the power is 46 dbm"]),
    ("the alder power", ["it is 40 dbm", "the alder power is 46 dbm"]),
    ("seven", ["band seven"]),
    ("46 " * 50, ["46 dbm"]),
]


@pytest.mark.parametrize(("answer", "references"), PAIRS)
def test_bert_score_is_that_of_the_package(
    encoder: Path, answer: str, references: list[str]
) -> None:
    import bert_score

    scorer = bert_score.BERTScorer(
        model_type=str(encoder), num_layers=2, idf=False, rescale_with_baseline=False, device="cpu"
    )
    theirs = scorer.score([answer], [references])[2].item()
    assert BertScore(encoder, 2).f1(answer, references) == pytest.approx(theirs, abs=1e-5)


def test_words_of_roberta_begin_with_a_space(tmp_path: Path) -> None:
    import bert_score
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel, RobertaTokenizer

    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator([" ".join(WORDS)] * 9, vocab_size=320, special_tokens=special)
    trained.save_model(str(tmp_path))
    names = str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")
    RobertaTokenizer(*names, model_max_length=64).save_pretrained(tmp_path)
    torch.manual_seed(5)
    config = RobertaConfig(
        vocab_size=trained.get_vocab_size(), hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32, max_position_embeddings=66,
        initializer_range=0.5,
    )  # fmt: skip
    RobertaModel(config).eval().save_pretrained(tmp_path)
    given = "power is 46 dbm", ["the alder power is 40 dbm"]
    scorer = bert_score.BERTScorer(model_type=str(tmp_path), num_layers=2, device="cpu")
    ours = BertScore(tmp_path, 2).f1(*given)
    # As transformers ignores the space that the package asks for, the package is given it.
    without = scorer.score([given[0]], [given[1]])[2].item()
    scorer._tokenizer = AutoTokenizer.from_pretrained(tmp_path, add_prefix_space=True)
    theirs = scorer.score([given[0]], [given[1]])[2].item()
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert abs(theirs - without) > 1e-3


def test_bert_score_of_equal_and_of_empty_texts(encoder: Path) -> None:
    score = BertScore(encoder, 3)
    assert score.f1("it is 46 dbm", ["seven", "it is 46 dbm"]) == pytest.approx(1.0, abs=1e-6)
    assert score.f1(" ", ["it is 46 dbm"]) == 0.0


def test_what_cannot_be_loaded_is_told(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        BertScore(tmp_path, 1)
    with pytest.raises(InvalidInput, match="bertscore_layer is 4, not 1 to 3"):
        BertScore(encoder, 4)
