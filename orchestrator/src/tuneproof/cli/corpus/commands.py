"""`tuneproof corpus create | ingest | freeze | list | show | search | export | delete`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from tuneproof.cli.asking import AskedRetriever
from tuneproof.cli.console import ExitCode, err, out, say
from tuneproof.cli.corpus.options import AlphaOption, ModeOption, NameArgument, RerankOption
from tuneproof.cli.options import takes_options
from tuneproof.cli.progress import progress_on
from tuneproof.data.reading.documents import Batch, open_source, survey
from tuneproof.data.reading.records import Fields, Mistake, listed
from tuneproof.sdk import (
    Chunking,
    CorpusInfo,
    DamagedCorpus,
    IngestResult,
    Passage,
    Rerank,
    RetrieverClient,
)
from tuneproof.servicekit.errors import InvalidInput

_SCORES = ("score", "first_score")
"""What a passage has only where it was searched for."""

app = typer.Typer(
    help="Make corpora of your own documents, search them, and measure how well that works.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("create")
@takes_options
def create_command(
    asked: AskedRetriever,
    name: NameArgument,
    *,
    by: Annotated[
        Literal["tokens", "sentences", "structure"],
        typer.Option(
            help="A passage is as many tokens as fit, to the end of a sentence; one sentence; or"
            " as many whole paragraphs below one heading as fit."
        ),
    ] = "tokens",
    max_tokens: Annotated[
        int, typer.Option(min=0, help="Longest passage; 0: the retriever's default.")
    ] = 0,
    overlap_tokens: Annotated[
        int, typer.Option(min=0, help="Tokens that a passage repeats from the one before.")
    ] = 0,
    label: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE, kept with the corpus; repeatable.")
    ] = None,
) -> None:
    """Create an empty corpus. With the same settings it may be repeated.

    Examples:

      tuneproof corpus create manual

      tuneproof corpus create manual --by structure --max-tokens 200 --label team=docs
    """
    labels, chunking = pairs_of(label, "--label"), Chunking(max_tokens, overlap_tokens, by)
    corpus = asked.run(lambda client: client.ensure_corpus(name, chunking, labels))
    asked.give(json_of(corpus), f"{name}: {_summary(corpus)}")


@app.command("ingest")
@takes_options
def ingest_command(
    asked: AskedRetriever,
    name: NameArgument,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="JSON Lines files, BEIR folders, folders of Markdown, text and PDF files, or"
            " hf:NAME for data sets of Hugging Face."
        ),
    ],
    *,
    skip_bad: Annotated[
        bool, typer.Option(help="Leave out what cannot be used, and store the rest.")
    ] = False,
    id_field: Annotated[str, typer.Option(help="Field with the id; by default _id or id.")] = "",
    text_field: Annotated[str, typer.Option(help="Field with the text.")] = "text",
    title_field: Annotated[str, typer.Option(help="Field with the title.")] = "title",
    config: Annotated[str, typer.Option(help="Configuration of a Hugging Face data set.")] = "",
    split: Annotated[str, typer.Option(help="Split of a Hugging Face data set.")] = "train",
) -> None:
    """Store documents in an open corpus; what it holds already is not stored again.

    It reads everything once before it sends a document, and lists mistakes by file and line. Ctrl-C
    loses nothing: give the same command again.

    Exits with 3 when it left something out.

    Examples:

      tuneproof corpus ingest manual docs/

      tuneproof corpus ingest manual articles.jsonl --skip-bad --id-field url

      tuneproof corpus ingest squad hf:rajpurkar/squad --text-field context --split validation
    """
    fields = Fields(id_field, text_field, title_field)
    opened = [open_source(each, fields, config=config, split=split) for each in sources]
    late: list[Mistake] = []

    def on_mistake(mistake: Mistake) -> None:
        if not skip_bad:
            raise InvalidInput(f"{mistake}; correct it, or leave it out with --skip-bad")
        late.append(mistake)

    with err.status("reading") if err.is_terminal else nullcontext():
        batch = survey(opened, on_mistake)
    if batch.mistakes and not skip_bad:
        raise InvalidInput(
            f"{len(batch.mistakes)} records cannot be used; correct them, or leave them out with"
            f" --skip-bad:\n{listed(batch.mistakes)}"
        )
    if not batch.count:
        raise InvalidInput(f"there is no document in {', '.join(sources)}")
    result = asked.run(lambda client: ingest(client, name, batch))
    left_out = [str(each) for each in late]
    left_out += [f"{each.id}: {each.error.message}" for each in result.rejected]
    count = len(late) + result.rejected_count
    if left_out:
        say(f"left out {count}:\n{listed(left_out)}")
    value = {
        "added": result.added,
        "unchanged": result.unchanged,
        "passages_added": result.passages_added,
        "left_out": count,
        "rejected": left_out,
    }
    asked.give(
        value,
        f"{name}: {result.added} documents added in {result.passages_added} passages,"
        f" {result.unchanged} there already, {count} left out",
    )
    if count:
        raise SystemExit(ExitCode.PARTLY)


async def ingest(client: RetrieverClient, name: str, batch: Batch) -> IngestResult:
    """Sends documents, with progress on the terminal."""
    with progress_on(err).stage("ingest", len(batch), 0) as stage:
        shown = 0

        def advance(done: int, _: int | None) -> None:
            nonlocal shown
            stage.advance(done - shown)
            shown = done

        return await client.ingest(name, batch, on_progress=advance)


@app.command("freeze")
@takes_options
def freeze_command(asked: AskedRetriever, name: NameArgument) -> None:
    """End ingestion, build the indexes, and compute the digest. It may be repeated.

    Example:

      tuneproof corpus freeze manual
    """
    corpus = asked.run(lambda client: client.freeze(name))
    asked.give(json_of(corpus), f"{name}: {_summary(corpus)}")


@app.command("list")
@takes_options
def list_command(asked: AskedRetriever) -> None:
    """List all corpora.

    Exits with 3 when the retriever cannot read one of them, and names that one.

    Example:

      tuneproof corpus list --json
    """
    damaged: list[DamagedCorpus] = []
    found = asked.run(lambda client: client.list(on_damaged=damaged.append))
    asked.give([json_of(each) for each in found], lambda: _show_list(found))
    if damaged:
        told = [f"{each.name}: {each.error.message}" for each in damaged]
        say(f"{len(damaged)} of {len(found) + len(damaged)} corpora are damaged:\n{listed(told)}")
        raise SystemExit(ExitCode.PARTLY)


@app.command("show")
@takes_options
def show_command(asked: AskedRetriever, name: NameArgument) -> None:
    """Show a corpus: state, digest, chunking, embedder, counts.

    Example:

      tuneproof corpus show manual
    """
    corpus = asked.run(lambda client: client.get(name))
    asked.give(json_of(corpus), lambda: _show(corpus))


@app.command("search")
@takes_options
def search_command(
    asked: AskedRetriever,
    name: NameArgument,
    query: Annotated[str, typer.Argument(help="The query.")],
    *,
    k: Annotated[int, typer.Option("-k", "--k", help="Number of passages, 1 to 1000.")] = 5,
    mode: ModeOption = "hybrid",
    alpha: AlphaOption = 0.5,
    rerank: RerankOption = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--filter", help="KEY=VALUE that the metadata must hold; repeatable."),
    ] = None,
) -> None:
    """Find passages of a frozen corpus.

    Examples:

      tuneproof corpus search manual "How do I reset the radio?"

      tuneproof corpus search manual reset -k 20 --mode keyword --filter format=pdf --json

      tuneproof corpus search manual "How do I reset the radio?" --rerank 50
    """
    if k < 1:
        raise InvalidInput(f"-k is {k}; it is 1 to 1000")
    entries = pairs_of(where, "--filter")
    again = None if rerank is None else Rerank(rerank)
    found = asked.run(
        lambda client: client.search(
            name, query, k=k, mode=mode, alpha=alpha, filter=entries, rerank=again
        )
    )
    asked.give([asdict(each) for each in found], lambda: _show_passages(found))


@app.command("export")
@takes_options
def export_command(
    asked: AskedRetriever,
    name: NameArgument,
    to: Annotated[
        Path | None, typer.Argument(help="A file; by default standard output.", dir_okay=False)
    ] = None,
) -> None:
    """Write the passages of a frozen corpus as JSON Lines, by ascending id.

    Examples:

      tuneproof corpus export manual passages.jsonl

      tuneproof corpus export manual | jq .text
    """
    if to is None:
        asked.run(lambda client: _export(client, name, print))
        return
    draft = to.with_name(f"{to.name}.part")
    try:
        with draft.open("w", encoding="utf-8") as file:
            count = asked.run(
                lambda client: _export(client, name, lambda line: print(line, file=file))
            )
        draft.replace(to)
    finally:
        draft.unlink(missing_ok=True)
    asked.give({"passages": count, "file": str(to)}, f"{to}: {count} passages")


@app.command("delete")
@takes_options
def delete_command(
    asked: AskedRetriever,
    name: NameArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a corpus and its passages. With --yes also one whose record is damaged.

    Example:

      tuneproof corpus delete manual --yes
    """
    if not yes:
        corpus = asked.run(lambda client: client.get(name))
        typer.confirm(f"Delete {name} ({_summary(corpus)})?", abort=True, err=True)
    asked.run(lambda client: client.delete(name))
    asked.give({"deleted": name}, f"{name}: deleted")


def pairs_of(given: Sequence[str] | None, option: str) -> dict[str, str]:
    """`KEY=VALUE` texts as a mapping."""
    pairs = [each.partition("=") for each in given or ()]
    if wrong := [each for each, pair in zip(given or (), pairs, strict=True) if not pair[1]]:
        raise InvalidInput(f"{option} is {wrong[0]!r}; it is KEY=VALUE")
    return {key: value for key, _, value in pairs}


def json_of(corpus: CorpusInfo) -> dict[str, Any]:
    """A corpus for machines."""
    return asdict(corpus)


def chunking_text(chunking: Chunking) -> str:
    """`tokens:200:20`, as `--chunking` takes it."""
    overlap = f":{chunking.overlap_tokens}" if chunking.overlap_tokens else ""
    return f"{chunking.by}:{chunking.max_tokens}{overlap}"


async def _export(client: RetrieverClient, name: str, write: Callable[[str], None]) -> int:
    count = 0
    async for passage in client.export(name):
        facts = {key: value for key, value in asdict(passage).items() if key not in _SCORES}
        write(json.dumps(facts, ensure_ascii=False))
        count += 1
    return count


def _summary(corpus: CorpusInfo) -> str:
    digest = f", {corpus.digest}" if corpus.digest else ""
    return (
        f"{corpus.state}, {corpus.documents} documents in {corpus.passages} passages"
        f" ({chunking_text(corpus.chunking)}){digest}"
    )


def _show_list(corpora: Sequence[CorpusInfo]) -> None:
    if not corpora:
        out.print("no corpora; `tuneproof corpus create NAME` makes one")
        return
    table = Table(
        "corpus", "state", "documents", "passages", "chunking", "embedder", "digest", box=None
    )
    for one in corpora:
        table.add_row(
            *(one.name, one.state, str(one.documents), str(one.passages)),
            *(chunking_text(one.chunking), one.embedder, one.digest.removeprefix("sha256:")[:12]),
        )
    out.print(table, markup=False)


def _show(corpus: CorpusInfo) -> None:
    table = Table(box=None, show_header=False)
    facts = {
        "corpus": corpus.name,
        "state": corpus.state,
        "digest": corpus.digest or "none until it is frozen",
        "documents": str(corpus.documents),
        "passages": str(corpus.passages),
        "chunking": f"by {corpus.chunking.by}, {corpus.chunking.max_tokens} tokens at most,"
        f" {corpus.chunking.overlap_tokens} of them shared",
        "embedder": f"{corpus.embedder}, {corpus.dimension} dimensions",
        "embedder digest": corpus.embedder_digest,
        **{f"label {key}": value for key, value in sorted(corpus.labels.items())},
    }
    for name, value in facts.items():
        table.add_row(name, value)
    out.print(table, markup=False)


def _show_passages(passages: Sequence[Passage]) -> None:
    for number, one in enumerate(passages, 1):
        place = f"{one.document_id} [{one.start}:{one.end}]"
        before = "" if one.first_score is None else f" (before reranking {one.first_score:.4f})"
        out.print(f"{number}. {place}  {one.score:.4f}{before}", markup=False)
        out.print(f"   {' '.join(one.text.split())}", markup=False)
    if not passages:
        out.print("no passage found")
