"""`tuneproof data check | show | convert`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tuneproof.cli.console import ExitCode, give
from tuneproof.cli.options import JsonOption, takes_options
from tuneproof.data.items import Dataset, Item
from tuneproof.data.loaders import own
from tuneproof.data.sources import DataSource
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.spec import DataSpec
from tuneproof.study.design.specfile import DATA_FILE

app = typer.Typer(
    help="Look at the data set of a study before running it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FileArgument = Annotated[
    Path, typer.Argument(help="The study file (YAML), or one with `dataset` and `split` alone.")
]


@dataclass(frozen=True)
class Asked:
    """Of every command here; each field is an option of the command."""

    data: Annotated[
        Path | None, typer.Option(help="The data set's file; overrides the study file.")
    ] = None
    as_json: JsonOption = False

    def read(self, file: Path) -> tuple[DataSpec, Dataset]:
        """What the file says, and its data set."""
        spec = DATA_FILE.load(file)
        source: DataSource = spec.dataset.located(file, [self.data] if self.data else [])
        return spec, source.load()

    def give(self, value: Any, shown: str) -> None:
        """Prints the result as `console.give` does."""
        give(value, shown, as_json=self.as_json)


@app.command("check")
@takes_options
def check_command(
    asked: Asked,
    file: FileArgument,
    *,
    model: Annotated[
        str,
        typer.Option(
            help="Folder or Hugging Face id of a model, to count in its tokens; by default"
            " services.model if that is a folder."
        ),
    ] = "",
    near: Annotated[
        float,
        typer.Option(min=0.5, max=1, help="Similarity from which two texts are near-duplicates."),
    ] = 0.8,
) -> None:
    """Count, and find missing parts, duplicates, leaks and texts that are too long.

    Near-duplicates are sought between tuning and test, and between gold documents and others.

    Exits with 2 when a study on these data would be refused.

    Examples:

      tuneproof data check studies/demo.yaml

      tuneproof data check study.yaml --model mistralai/Mistral-7B-Instruct-v0.2 --json
    """
    # Loading scipy takes a while.
    from tuneproof.cli.data.checking import check  # noqa: PLC0415

    spec, dataset = asked.read(file)
    checked = check(file, spec, dataset, model=model, near=near)
    asked.give(checked.value, "\n".join(checked.lines))
    if checked.problems:
        raise SystemExit(ExitCode.BAD_INPUT)


@app.command("show")
@takes_options
def show_command(
    asked: Asked,
    file: FileArgument,
    items: Annotated[list[str] | None, typer.Argument(help="Ids of questions.")] = None,
    *,
    first: Annotated[int, typer.Option(min=1, help="How many to show when no id is given.")] = 3,
) -> None:
    """Show questions with their reference answers and their evidence.

    Examples:

      tuneproof data show studies/demo.yaml

      tuneproof data show study.yaml nq:797803103760793766 --json
    """
    _, dataset = asked.read(file)
    known = {item.id: item for item in dataset.items}
    if lacking := [name for name in items or () if name not in known]:
        raise InvalidInput(f"{dataset.name} has no question {', '.join(map(repr, lacking))}")
    chosen = [known[name] for name in items] if items else dataset.items[:first]
    asked.give([own.json_of(item) for item in chosen], "\n\n".join(map(_shown, chosen)))


@app.command("convert")
@takes_options
def convert_command(
    asked: Asked,
    file: FileArgument,
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.")],
) -> None:
    """Write the data set as `items.jsonl` and `documents.jsonl`, which a study can name.

    Example:

      tuneproof data convert study.yaml mine/
    """
    spec, dataset = asked.read(file)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "items.jsonl", map(own.json_of, dataset.items))
    documents = (
        {"id": one.id, "title": one.title, "text": one.text, "metadata": dict(one.metadata)}
        for one in dataset.documents
    )
    _write(folder / "documents.jsonl", documents)
    name = "{name: jsonl, path: items.jsonl, corpus: documents.jsonl"
    section = name + (", unanswerable: true}" if spec.dataset.unanswerable else "}")
    value = {
        "folder": str(folder),
        "items": len(dataset.items),
        "documents": len(dataset.documents),
        "dataset": section,
    }
    asked.give(
        value,
        f"{folder}: {len(dataset.items)} items, {len(dataset.documents)} documents; for a study"
        f" file in that folder:\ndataset: {section}",
    )


def _write(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    draft = path.with_name(f"{path.name}.part")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _shown(item: Item) -> str:
    rows = [
        ("id", item.id if item.answerable else f"{item.id} (unanswerable)"),
        ("question", item.question),
        *((style, text) for style, texts in item.references.items() for text in texts),
        ("cluster", item.cluster),
        *(("gold in", name) for name in item.gold_documents),
        *(("evidence", " ".join(text.split())) for text in item.gold_texts),
    ]
    return "\n".join(f"{name:<10} {text}" for name, text in rows)
