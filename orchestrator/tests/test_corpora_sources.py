"""What documents and topics are read from, and how mistakes are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from weakref import WeakSet

import pytest

from tuneproof.cli.corpus.evaluating import _digest_of
from tuneproof.corpora.topics import Place, open_collection
from tuneproof.data.items import Document
from tuneproof.data.reading.documents import Batch, open_source, survey
from tuneproof.data.reading.lines import grades_of
from tuneproof.data.reading.records import Fields, Mistake, Source
from tuneproof.sdk import Passage
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput

pytestmark = pytest.mark.timeout(60)


def read(path: Path, fields: Fields | None = None) -> list[Document | Mistake]:
    return [record for _, record in open_source(str(path), fields or Fields()).records()]


def test_json_lines_with_beirs_names_and_ours(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(
        b'\xef\xbb\xbf{"_id": "a", "title": "T", "text": "one", "metadata": {"n": 3}}\r\n'
        b'\n{"id": 7, "text": "two"}\n'
    )
    expected = [Document("a", "one", "T", {"n": "3"}), Document("7", "two")]
    assert read(file) == expected
    assert read(tmp_path) == expected


def test_fields_have_the_names_that_are_given(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"url": "u", "body": "b", "head": "h", "id": 1}')
    assert read(file, Fields("url", "body", "head")) == [Document("u", "b", "h")]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"{", "is not JSON: column"),
        (b"[1]", "is not an object"),
        (b'{"text": "x"}', "lacks an id"),
        (b'{"id": " ", "text": "x"}', "lacks an id"),
        (b'{"id": true, "text": "x"}', "lacks an id"),
        (b'{"id": "a"}', "lacks a text in 'text'"),
        (b'{"id": "a", "text": ""}', "its text is blank"),
        (b'{"id": "a", "text": " \\n"}', "its text is blank"),
        (b'{"id": "a", "text": 3}', "lacks a text"),
        (b'{"id": "a", "text": "x", "title": 3}', "'title' is not a text"),
        (b'{"id": "a", "text": "x", "metadata": [1]}', "metadata is not"),
        (b'{"id": "a", "text": "x", "metadata": {"k": [1]}}', "metadata is not"),
        (b'{"id": "a", "text": "x\xff"}', "is not UTF-8 (byte 22"),
        (b'{"id": "a", "text": "x \\ud800"}', "half a character"),
        (b'{"id": "a", "text": "x", "metadata": {"\\ud800": "v"}}', "half a character"),
        (b"[" * 200_000, "is not JSON"),
        (b'{"id": ' + b"9" * 5000 + b', "text": "x"}', "is not JSON"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(tmp_path, line, what):
    file = tmp_path / "x.jsonl"
    file.write_bytes(b'{"id": "1", "text": "good"}\n' + line + b'\n{"id": "2", "text": "good"}\n')
    first, mistake, last = read(file)
    assert (first.id, last.id) == ("1", "2")
    assert isinstance(mistake, Mistake)
    assert mistake.where == f"{file}, line 2"
    assert what in mistake.what


def test_a_survey_counts_and_finds_repeated_ids(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"id": "1", "text": "a"}\n{"id": "1", "text": "b"}\n{"id": "2", "text": "c"}')
    late = []
    batch = survey([open_source(str(file), Fields())], late.append)
    assert len(batch) == 2
    told = f"{file}, line 2: the id '1' is that of an earlier record"
    assert [str(each) for each in batch.mistakes] == [told]
    assert [each.id for each in batch] == ["1", "2"]
    assert [each.text for each in batch] == ["a", "c"], "it can be read again"
    assert [str(each) for each in late] == [told, told]


def test_an_id_of_another_source_is_named_by_its_own_file_and_line(tmp_path):
    files = [tmp_path / name for name in ("one.jsonl", "two.jsonl")]
    files[0].write_text('{"id": "a.md", "text": "a"}\n')
    files[1].write_text('\n{"id": "b", "text": "b"}\n{"id": "a.md", "text": "c"}\n')
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.md").write_text("d")
    sources = [open_source(str(each), Fields()) for each in (*files, folder)]
    batch = survey(sources, lambda _: None)
    assert [each.where for each in batch.mistakes] == [f"{files[1]}, line 3", str(folder / "a.md")]


def test_the_digest_of_a_collection_reads_one_document_at_a_time():
    class Text(str):
        """Can be referred to weakly."""

    alive, most = WeakSet(), []

    def records():
        for number in range(40):
            text = Text(f"text {number}")
            alive.add(text)
            most.append(len(alive))
            yield f"x, line {number}", Document(f"d{number}", text, "T", {"n": str(number)})

    batch = Batch([Source("x", records)], 40, (), print)
    found = _digest_of(batch)
    assert max(most) <= 3
    expected = [[f"d{n}", "T", f"text {n}", {"n": str(n)}] for n in range(40)]
    assert found == sha256_of_json(expected), "corpora of earlier versions are found again"


def pdf(text: str) -> bytes:
    """A PDF of one page, as small as can be."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
            b" /Resources << /Font << /F1 5 0 R >> >> >>"
        ),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % len(out)
    return out + b"xref\n0 6\n0000000000 65535 f \n" + table + end


def test_a_folder_of_markdown_text_and_pdf(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/x.md").write_text("no")
    (tmp_path / "a.md").write_text("intro\n# The title\ntext")
    (tmp_path / "sub/b.TXT").write_text("plain")
    (tmp_path / "c.pdf").write_bytes(pdf("Hello from a page"))
    (tmp_path / "d.docx").write_text("not read")
    a, c, b = read(tmp_path)
    assert a == Document("a.md", "intro\n# The title\ntext", "The title", {"format": "markdown"})
    assert b == Document("sub/b.TXT", "plain", "", {"format": "text"})
    assert (c.id, c.text.strip(), c.metadata["pages"]) == ("c.pdf", "Hello from a page", "1")


def test_files_of_a_folder_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "bytes.md").write_bytes(b"ab\xff")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4\n" + b"\0garbage" * 50)
    (tmp_path / "none.pdf").write_text("I am a text")
    (tmp_path / "picture.pdf").write_bytes(pdf(""))
    found = {Path(each.where).name: each.what for each in read(tmp_path)}
    assert "blank" in found["blank.txt"]
    assert "not UTF-8 text (byte 2)" in found["bytes.md"]
    assert "cannot be read as PDF" in found["broken.pdf"]
    assert found["none.pdf"] == "is not a PDF file, although its name ends in .pdf"
    assert "holds no text" in found["picture.pdf"]


def test_a_survey_of_a_folder_sees_a_pdf_that_is_none(tmp_path):
    (tmp_path / "none.pdf").write_text("I am a text")
    (tmp_path / "good.pdf").write_bytes(pdf("text"))
    batch = survey([open_source(str(tmp_path), Fields())], lambda _: None)
    assert (len(batch), len(batch.mistakes)) == (1, 1)


def test_without_the_pdf_reader_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdf", None)
    (tmp_path / "a.pdf").write_bytes(pdf("text"))
    with pytest.raises(InvalidInput, match=r"pip install 'tuneproof\[pdf\]'"):
        read(tmp_path)
    with pytest.raises(InvalidInput, match=r"pip install 'tuneproof\[pdf\]'"):
        survey([open_source(str(tmp_path), Fields())], lambda _: None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no file or folder"),
        (lambda path: path.mkdir(), "holds no file ending in .md"),
        (lambda path: path.write_text("x"), "neither JSON Lines"),
    ],
)
def test_a_path_that_cannot_be_used_is_named(tmp_path, make, message):
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(InvalidInput, match=message):
        open_source(str(path), Fields())


def beir(folder: Path) -> Path:
    """A data set of four documents and three questions, one of them without evidence."""
    (folder / "qrels").mkdir(parents=True)
    queries = [{"_id": f"q{n}", "text": f"question {n}"} for n in range(3)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq0\td0\t2\nq0\td1\t1\nq1\td1\t1\nq1\td2\t0\nq2\td3\t0\n"
    )
    documents = [{"_id": f"d{n}", "title": "", "text": f"document {n}"} for n in range(4)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    return folder


def test_a_beir_folder(tmp_path):
    found = open_collection([beir(tmp_path / "tiny")])
    first, second, third = found.topics
    assert [(p.places[0].document, p.grade) for p in first.evidence] == [("d0", 2), ("d1", 1)]
    assert [p.places[0].document for p in second.evidence] == ["d1"], "grade 0 is no evidence"
    assert third.evidence == ()
    assert first.cluster == second.cluster != third.cluster
    assert len(list(found.documents.records())) == 4
    with pytest.raises(InvalidInput, match="splits there: test"):
        open_collection([tmp_path / "tiny"], split="dev")


def test_a_bad_line_of_qrels_is_named(tmp_path):
    file = tmp_path / "test.tsv"
    file.write_text("query-id\tcorpus-id\tscore\nq\td\tmany\n")
    with pytest.raises(InvalidInput, match=r"test.tsv, line 2: expected query id"):
        grades_of(file)


def test_topics_of_json_lines(tmp_path):
    file = tmp_path / "q.jsonl"
    pieces = [{"document": "d", "start": 4, "end": 90}, {"document": "e", "text": "words"}]
    file.write_text(json.dumps({"id": "q", "query": "what", "evidence": pieces}))
    (topic,) = open_collection([file]).topics
    assert [piece.places for piece in topic.evidence] == [
        (Place("d", 4, 90),),
        (Place("e", text="words"),),
    ]
    lines = [
        '{"id": "q", "query": "what"}',
        '{"id": 1}',
        "x",
        '{"id":"a","query":"b","evidence":3}',
        '{"id":"b","query":"b","evidence":[{"document":"d","end":1e999}]}',
        *['{"id":"c","query":"c","evidence":[]}'] * 2,
    ]
    file.write_text("\n".join(lines))
    wrong = (
        r"(?s)line 1: lacks 'evidence'.*line 3.*line 4: is not.*line 5: is not"
        r".*line 7: the id 'c' is that of an earlier record"
    )
    with pytest.raises(InvalidInput, match=wrong):
        open_collection([file])


def test_bioasqs_evidence_has_its_offsets_in_the_document(tmp_path):
    url = "http://www.ncbi.nlm.nih.gov/pubmed/{}"
    snippets = [
        {"document": url.format(1), "text": "Later words.", "offsetInBeginSection": 90},
        {"document": url.format(1), "text": "First words.", "offsetInBeginSection": 3},
        {"document": url.format(2), "text": "Later words."},
    ]
    question = {"id": "q", "body": "What?", "ideal_answer": ["It."], "snippets": snippets}
    file = tmp_path / "golden.json"
    file.write_text(json.dumps({"questions": [question]}))
    found = open_collection([file])
    texts = {each.id: each.text for _, each in found.documents.records()}
    shown = [
        {place.document: texts[place.document][place.start : place.end] for place in piece.places}
        for piece in found.topics[0].evidence
    ]
    assert shown == [
        {"pubmed:1": "Later words.", "pubmed:2": "Later words."},
        {"pubmed:1": "First words."},
    ]
    assert "gold snippets only" in found.notes[0]


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [
        (0, 100, True),
        (40, 60, False),  # 10 characters of the evidence
        (60, 200, True),
        (85, 300, False),
        (60, 80, False),  # within it, but too short to show anything
        (55, 90, True),
        (100, 200, False),
    ],
)
def test_evidence_is_found_by_its_offsets(start, end, shown):
    place = Place("d", 50, 100)
    passage = Passage("p", "d", "x" * (end - start), start, end, 1.0)
    assert place.shown_by(passage) is shown
    assert not Place("e", 50, 100).shown_by(passage)
