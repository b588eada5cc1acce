"""`tuneproof corpus …` against a real retriever in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from small_study import invoke
from test_corpora_sources import beir, pdf

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("retriever")
    file = folder / "announced.json"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tuneproof_retriever", "--store-dir", str(folder / "corpora")),
            *("--announce-file", str(file), "--torch-threads", "1"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 120
        while not file.exists():
            assert process.poll() is None, "the retriever ended"
            assert time.monotonic() < end, "the retriever did not start"
            time.sleep(0.1)
        yield json.loads(file.read_text())["grpc"]
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def run(capsys, monkeypatch, retriever, tmp_path):
    monkeypatch.chdir(tmp_path)
    call = partial(invoke, capsys, monkeypatch)

    def corpus(*arguments: str) -> tuple[int, str, str]:
        return call("corpus", *arguments, "--retriever", retriever)

    return corpus


def ok(result: tuple[int, str, str]) -> object:
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


@pytest.mark.slow
def test_the_life_of_a_corpus(run, tmp_path):
    folder = tmp_path / "manual"
    folder.mkdir()
    text = "# Radio\n\nThe Alder 40 transmits at 3.5 GHz.\n\n## Off\n\nPull."
    (folder / "radio.md").write_text(text)
    (folder / "relay.pdf").write_bytes(pdf("The relay holds nine contacts."))
    settings = ("--by", "structure", "--max-tokens", "64", "--label", "team=docs")
    created = ok(run("create", "life", *settings, "--json"))
    assert created["chunking"] == {"max_tokens": 64, "overlap_tokens": 0, "by": "structure"}
    stored = ok(run("ingest", "life", str(folder), "--json"))
    assert (stored["added"], stored["passages_added"], stored["left_out"]) == (2, 3, 0)
    assert ok(run("ingest", "life", str(folder), "--json"))["unchanged"] == 2
    frozen = ok(run("freeze", "life", "--json"))
    assert frozen["state"] == "frozen"
    assert ok(run("show", "life", "--json")) == frozen
    assert frozen in ok(run("list", "--json"))
    (best,) = ok(run("search", "life", "How many contacts?", "-k", "1", "--json"))
    assert (best["document_id"], best["metadata"]["format"]) == ("relay.pdf", "pdf")
    only = ok(run("search", "life", "contacts", "--filter", "format=markdown", "--json"))
    assert {each["document_id"] for each in only} == {"radio.md"}
    written = ok(run("export", "life", "out.jsonl", "--json"))
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert written["passages"] == len(lines) == 3
    assert {line["title"] for line in lines} == {"Radio", ""}
    for line in lines:
        if line["document_id"] == "radio.md":
            assert text[line["start"] : line["end"]] == line["text"]
    code, out, _ = run("show", "life")
    assert code == 0
    assert "by structure, 64 tokens at most" in out
    assert ok(run("delete", "life", "--yes", "--json")) == {"deleted": "life"}
    assert run("show", "life")[0] == 1


def test_bad_records_end_the_command_or_are_left_out(run, tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_bytes(b'{"id": "1", "text": "good one"}\nnonsense\n{"id": "2", "text": "\xff"}\n')
    assert run("create", "bad")[0] == 0
    code, _, err = run("ingest", "bad", str(file))
    assert code == 2
    assert "x.jsonl, line 2: is not JSON" in err
    assert "x.jsonl, line 3: is not UTF-8" in err
    code, out, err = run("ingest", "bad", str(file), "--skip-bad", "--json")
    assert code == 3
    assert (json.loads(out)["added"], json.loads(out)["left_out"]) == (1, 2)
    assert "left out 2" in err


def test_what_the_retriever_refuses_is_listed(run, tmp_path):
    file = tmp_path / "big.jsonl"
    texts = {"big": "a word " * 1_600_000, "larger": "a word " * 2_400_000, "small": "a word"}
    file.write_text("\n".join(json.dumps({"id": i, "text": text}) for i, text in texts.items()))
    assert run("create", "sizes")[0] == 0
    code, out, _ = run("ingest", "sizes", str(file), "--json")
    assert code == 3
    value = json.loads(out)
    assert (value["added"], value["left_out"]) == (1, 2)
    assert any("bytes of text, more than 10000000; split it" in each for each in value["rejected"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("search", "open", "x"), 1, "is open; freeze it before searching it"),
        (("ingest", "done", "one.jsonl"), 1, "is frozen and takes no more documents"),
        (("search", "nowhere", "x"), 1, "there is no corpus 'nowhere'"),
        (("freeze", "open"), 1, "is empty; ingest documents"),
        (("create", "Bad Name"), 2, "a corpus's name has 1 to 63 characters"),
        (("create", "done", "--max-tokens", "99"), 1, "exists with other chunking"),
        (("create", "c", "--max-tokens", "9000"), 2, "chunking.max_tokens is 9000; this embedder"),
        (("search", "done", "x", "-k", "0"), 2, "-k is 0; it is 1 to 1000"),
        (("search", "done", "x", "-k", "1000000"), 2, "k is 1000000, not 1 to 1000"),
        (("search", "done", " "), 2, "query is blank"),
        (("search", "done", "x", "--filter", "format"), 2, "'format'; it is KEY=VALUE"),
        (("search", "done", "x " * 2000), 2, "tokens, more than the"),
        (("ingest", "open", "none.jsonl"), 2, "there is no file or folder none.jsonl"),
        (("ingest", "open", "pdfs"), 2, "is not a PDF file, although its name ends in .pdf"),
        (("ingest", "open", "blank.jsonl"), 2, "blank.jsonl, line 1: its text is blank"),
        (("eval", "one.jsonl", "--corpus", "done"), 2, "line 1: lacks 'evidence'"),
        (("eval", "topics.jsonl"), 2, "is without documents: name a corpus with --corpus"),
        (("eval", "topics.jsonl", "--chunking", "words:9"), 2, "--chunking is 'words:9'"),
        (("eval", "topics.jsonl", "--corpus", "done", "--mode", "fuzzy"), 2, "--mode is 'fuzzy'"),
        (("eval", "topics.jsonl", "--corpus", "open"), 2, "every search failed"),
        (("eval", "topics.jsonl", "--corpus", "nowhere"), 1, "there is no corpus 'nowhere'"),
    ],
)
def test_bad_input_gets_one_clear_message(run, tmp_path, arguments, code, message):
    (tmp_path / "one.jsonl").write_text('{"id": "1", "text": "one"}')
    (tmp_path / "blank.jsonl").write_text('{"id": "1", "text": " "}')
    (tmp_path / "pdfs").mkdir()
    (tmp_path / "pdfs/none.pdf").write_text("text")
    topic = {"id": "q", "query": "one", "evidence": [{"document": "1"}]}
    (tmp_path / "topics.jsonl").write_text(json.dumps(topic))
    assert run("create", "open")[0] == 0
    if run("show", "done")[0] != 0:
        for step in (("create", "done"), ("ingest", "done", "one.jsonl"), ("freeze", "done")):
            assert run(*step)[0] == 0
    got, _, err = run(*arguments)
    assert message in err
    assert got == code
    assert "Traceback" not in err


def test_a_filter_with_a_field_that_no_passage_has_finds_nothing(run, tmp_path):
    (tmp_path / "one.jsonl").write_text('{"id": "1", "text": "one"}')
    for step in (("create", "few"), ("ingest", "few", "one.jsonl"), ("freeze", "few")):
        assert run(*step)[0] == 0
    assert ok(run("search", "few", "one", "--filter", "unknown=1", "--json")) == []


def test_configurations_are_measured_side_by_side(run, tmp_path):
    folder = beir(tmp_path / "tiny")
    options = ("--chunking", "tokens:64", "--chunking", "sentences:64", "-k", "1", "-k", "5")
    found = ok(run("eval", str(folder), *options, "--json"))
    assert (found["collection"], found["topics"]) == ("tiny", 2)
    assert len(found["sides"]) == 6
    first = found["sides"][0]
    assert (first["name"], first["differences"]) == ("tokens:64 hybrid", {})
    measures = {"success@1", "success@5", "recall@1", "recall@5", "RR@10", "nDCG@10"}
    assert set(first["figures"]) == measures
    assert first["figures"]["recall@1"]["ceiling"] == pytest.approx(0.75)
    assert first["figures"]["success@5"]["mean"] == 1.0
    assert "without evidence" in found["notes"][-1]
    code, out, err = run("eval", str(folder), *options)
    assert code == 0
    assert "difference from tokens:64 hybrid" in out
    assert "making corpus" not in err, "the corpora are found again"


def test_a_damaged_corpus_is_told_and_can_be_deleted(run, tmp_path_factory):
    assert run("create", "damaged")[0] == 0
    found = tmp_path_factory.getbasetemp().glob("retriever*/corpora/damaged/corpus.json")
    (record,) = {path.resolve() for path in found}  # pytest links to the newest folder.
    record.write_text("{}")
    code, _, err = run("show", "damaged")
    assert code == 1
    assert "delete the corpus" in err
    assert run("create", "whole")[0] == 0
    code, out, err = run("list", "--json")
    assert code == 3
    names = [each["name"] for each in json.loads(out)]
    assert "whole" in names
    assert "damaged" not in names
    assert f"1 of {len(names) + 1} corpora are damaged" in err
    assert "the record of corpus 'damaged' cannot be read" in err
    assert ok(run("delete", "damaged", "--yes", "--json")) == {"deleted": "damaged"}
    assert "there is no corpus 'damaged'" in run("delete", "damaged", "--yes")[2]


def test_the_same_documents_under_another_name_get_a_corpus_of_their_own(run, tmp_path):
    """As with another embedder, the first name belongs to a corpus that differs."""
    for name in ("one", "other"):
        folder = beir(tmp_path / name)
        options = ("--chunking", "tokens:48", "--mode", "keyword", "--json")
        first = ok(run("eval", str(folder), *options))["sides"][0]["corpus"]["name"]
        assert ok(run("eval", str(folder), *options))["sides"][0]["corpus"]["name"] == first
    held = [each for each in ok(run("list", "--json")) if each["chunking"]["max_tokens"] == 48]
    assert {each["labels"]["collection"] for each in held} == {"one", "other"}


def test_a_data_set_of_hugging_faces_library(run, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"context": "one row"}\n{"context": "another row"}\n')
    assert run("create", "hub")[0] == 0
    stored = ok(run("ingest", "hub", f"hf:{folder}", "--text-field", "context", "--json"))
    assert stored["added"] == 2
    code, _, err = run("ingest", "hub", f"hf:{folder}")
    assert code == 2
    assert "has no column 'text'; it has context" in err


@pytest.mark.parametrize(
    "name", ["create", "ingest", "freeze", "list", "show", "search", "export", "delete", "eval"]
)
def test_every_command_shows_an_example(capsys, monkeypatch, name):
    code, out, _ = invoke(capsys, monkeypatch, "corpus", name, "--help")
    assert code == 0
    assert "tuneproof corpus " + name in out
