"""Which documents a path or a name means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from tuneproof.data.items import Document
from tuneproof.data.reading import folders, lines
from tuneproof.data.reading.hub import PREFIX, HubData
from tuneproof.data.reading.records import Fields, Mistake, Source, unique
from tuneproof.servicekit.errors import InvalidInput

_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


def open_source(given: str, fields: Fields, *, config: str = "", split: str = "train") -> Source:
    """The documents of a JSON Lines file, a BEIR folder, a folder of texts, or `hf:NAME`.

    Raises:
        InvalidInput: nothing is there, or nothing that can be read.
    """
    if given.startswith(PREFIX):
        data = HubData(given.removeprefix(PREFIX), config, split)
        return Source(data.name, partial(data.records, fields))
    path = Path(given)
    if path.is_dir():
        if (path / "corpus.jsonl").is_file():
            return Source(given, partial(lines.records_of, path / "corpus.jsonl", fields))
        folders.files_of(path)
        return Source(
            given,
            partial(folders.records_of, path),
            partial(folders.records_of, path, survey=True),
        )
    if not path.is_file():
        raise InvalidInput(f"there is no file or folder {given}; a data set's name follows hf:")
    if not path.name.lower().endswith(_LINES):
        raise InvalidInput(
            f"{given} is neither JSON Lines (.jsonl) nor a folder; put single files into a folder"
        )
    return Source(given, partial(lines.records_of, path, fields))


@dataclass(frozen=True)
class Batch:
    """Documents to ingest: counted, and read once more each time."""

    sources: Sequence[Source]
    count: int
    mistakes: tuple[Mistake, ...]
    """Found while counting."""
    on_mistake: Callable[[Mistake], None]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Document]:
        for record in unique(chain.from_iterable(source.records() for source in self.sources)):
            if isinstance(record, Mistake):
                self.on_mistake(record)
            else:
                yield record


def survey(sources: Sequence[Source], on_mistake: Callable[[Mistake], None]) -> Batch:
    """Reads everything once, so that mistakes show before a document is sent."""
    count, mistakes = 0, []
    read = chain.from_iterable((source.survey or source.records)() for source in sources)
    for record in unique(read):
        if isinstance(record, Mistake):
            mistakes.append(record)
        else:
            count += 1
    return Batch(sources, count, tuple(mistakes), on_mistake)
