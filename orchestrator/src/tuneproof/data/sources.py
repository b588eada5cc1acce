"""The data sets that a study file can name: their keys, and how each is loaded.

A new data set is a class here, a loader in a module of its own, and a member of `DataSource`.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from tuneproof.data import telecom
from tuneproof.data.items import Dataset, Item, JudgeForm
from tuneproof.data.joining import Wanted, documents_of, joined, narrowed
from tuneproof.data.loaders import bioasq, natural_questions, nq_open, own, qasper, teleqna
from tuneproof.data.reading.hub import PREFIX, HubData
from tuneproof.data.reading.lines import objects_of
from tuneproof.data.reading.records import Mistake
from tuneproof.data.reading.tables import rows_of
from tuneproof.servicekit.errors import InvalidInput

LARGEST_SEED = 2**32 - 1
NAME_PATTERN = r"^[a-z][a-z0-9-]{0,39}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class KnownWorld(Protocol):
    """A world whose right answers a program knows, so that it can examine the instruments."""

    def oracle_context(self, dataset: Dataset, item: Item, facts: int) -> list[str]:
        """Passages of `facts` facts, an item's evidence among them."""

    def judge_forms(self, count: int) -> list[JudgeForm]:
        """Answers whose right scores are known."""

    def score(self, reference: str, answer: str) -> Mapping[str, int]:
        """The right score of an answer, by criterion."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


Places = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
"""Files, folders, or names of data sets after `hf:`."""
SomePlaces = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_as_list)]
"""At least one of them."""


class Source(BaseModel):
    """What every data set has. Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    styles: Annotated[tuple[Name, ...], BeforeValidator(_as_list)] = ()
    """Questions without a reference answer in one of these styles are left out."""
    unanswerable: bool = False
    """Whether questions stay that the documents do not answer."""
    distractors: Places = ()
    """Documents without evidence, relative to the study file."""

    def located(self, study: Path, given: Sequence[Path]) -> Self:
        """The same with the files that it is read from.

        Args:
            study: the study file; the paths in it are relative to its folder.
            given: files that the command line names; they win.

        Raises:
            InvalidInput: files are given to a data set that is not read from files, or are
                missing.
        """
        if given:
            raise InvalidInput("--data does not fit: this data set is not read from files")
        places = {name: getattr(self, name, ()) for name in ("corpus", "distractors")}
        located = {name: _located(each, study) for name, each in places.items() if each}
        return self.model_copy(update=located)

    def load(self) -> Dataset:
        """Reads or makes the data set, with what the study wants of it.

        Raises:
            InvalidInput: its files cannot be used, with all mistakes in the message; or no question
                is left.
        """
        return joined(narrowed(self.read(), self.wanted), self.distractors)

    @abstractmethod
    def read(self) -> Dataset:
        """All of the data set."""

    @property
    def wanted(self) -> Wanted:
        """Which questions the study wants."""
        return Wanted(self.styles, self.unanswerable)

    @property
    def world(self) -> KnownWorld | None:
        """The world behind the data; None where no program knows the right answers."""
        return None


class FileSource(Source):
    """A data set that is read from files."""

    path: Annotated[tuple[Path, ...] | None, BeforeValidator(_as_list)] = None
    """Relative to the study file; `--data` wins."""
    files: ClassVar[str]
    """Which files they are, and where to get them."""

    def located(self, study: Path, given: Sequence[Path]) -> Self:
        """The same with whole paths."""
        folder = study.resolve().parent
        paths = tuple(path.resolve() for path in given) or tuple(
            (folder / path).resolve() for path in self.path or ()
        )
        if not paths:
            raise InvalidInput(
                f"{study} leaves open where its data are: say --data PATH with {self.files}"
            )
        return super().located(study, []).model_copy(update={"path": paths})

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files.

        Raises:
            InvalidInput: there are none.
        """
        if not self.path:
            raise InvalidInput(f"path is missing: name {self.files}", field="path")
        return self.path


def _located(places: Places, study: Path) -> Places:
    folder = study.resolve().parent
    return tuple(
        place if place.startswith(PREFIX) else str((folder / place).resolve()) for place in places
    )


def _no_truth_value(value: Any) -> Any:
    """Refuses `true`, which Python takes for 1."""
    if isinstance(value, bool):
        raise ValueError("expected a whole number")  # noqa: TRY004 - pydantic reports it
    return value


Count = Annotated[int, BeforeValidator(_no_truth_value)]


class TelecomData(Source):
    """The fictional operator's manual, generated."""

    name: Literal["telecom"]
    seed: Count = Field(ge=0, le=LARGEST_SEED)
    documents: Count = Field(ge=1, le=telecom.LARGEST_WORLD)
    facts_per_document: Count = Field(default=6, ge=1, le=telecom.LARGEST_CHAPTER)
    reworded: float = Field(default=0.0, ge=0, le=1)
    """Share of the questions in wordings that the demo's model has never seen."""

    def read(self) -> Dataset:
        """The manual of this seed."""
        return telecom.generate(
            self.seed, self.documents, self.facts_per_document, reworded=self.reworded
        )

    @property
    def world(self) -> KnownWorld:
        """The generator of the manual."""
        return telecom.World(self.seed)


class BioasqData(FileSource):
    """BioASQ's own JSON."""

    files = "BioASQ's golden file (12B1_golden.json; registration at participants-area.bioasq.org)"
    name: Literal["bioasq"]

    def read(self) -> Dataset:
        """The questions of all files, as one data set."""
        return bioasq.load(*self.paths)


class NaturalQuestionsData(FileSource):
    """Natural Questions, original or simplified."""

    files = "files of Natural Questions (v1.0-simplified_simplified-nq-train.jsonl.gz)"
    name: Literal["natural-questions"]
    documents: natural_questions.By = "pages"
    items: Annotated[int, Field(ge=1), BeforeValidator(_no_truth_value)] | None = None
    """Questions to draw from those that are wanted; without it, all."""
    seed: Count = Field(default=1, ge=0, le=LARGEST_SEED)
    """Of the draw."""

    def read(self) -> Dataset:
        """The drawn questions and their pages."""
        return natural_questions.load(
            self.paths,
            by=self.documents,
            items=self.items,
            seed=self.seed,
            reason_against=self.wanted.reason_against,
        )


class NqOpenData(FileSource):
    """NQ-open."""

    files = "a file of NQ-open (NQ-open.dev.jsonl)"
    name: Literal["nq-open"]
    corpus: SomePlaces

    def read(self) -> Dataset:
        """The questions of all files, and the corpus."""
        return nq_open.load(self.paths, documents_of(self.corpus))


class QasperData(FileSource):
    """Qasper 0.3."""

    files = "a file of Qasper (qasper-dev-v0.3.json)"
    name: Literal["qasper"]

    def read(self) -> Dataset:
        """The papers of all files and their questions."""
        return qasper.load(self.paths)


class TeleqnaData(FileSource):
    """TeleQnA."""

    files = "TeleQnA's file, unpacked (TeleQnA.txt)"
    name: Literal["teleqna"]
    corpus: SomePlaces

    def read(self) -> Dataset:
        """The questions that can be asked without their options, and the corpus."""
        return teleqna.load(self.paths, documents_of(self.corpus))


class JsonlData(FileSource):
    """JSON Lines of the user's own."""

    files = "a file of JSON Lines (questions.jsonl)"
    name: Literal["jsonl"]
    corpus: Places = ()
    fields: own.ItemFields = own.ItemFields()

    def read(self) -> Dataset:
        """The records of all files, and the corpus."""
        records = chain.from_iterable(map(objects_of, self.paths))
        return own.load(self.paths[0].stem, records, self.fields, documents_of(self.corpus))


class CsvData(FileSource):
    """CSV files of the user's own."""

    files = "a CSV file (questions.csv)"
    name: Literal["csv"]
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ","
    corpus: Places = ()
    fields: own.ItemFields

    def read(self) -> Dataset:
        """The rows of all files, and the corpus."""
        rows = chain.from_iterable(rows_of(path, self.delimiter) for path in self.paths)
        records = ((where, _with_lists(row)) for where, row in rows)
        return own.load(self.paths[0].stem, records, self.fields, documents_of(self.corpus))


def _with_lists(row: dict[str, str] | Mistake) -> dict[str, Any] | Mistake:
    """A row in which a cell that is a JSON list of texts is one."""
    return row if isinstance(row, Mistake) else {key: _list_of(row[key]) for key in row}


def _list_of(cell: str) -> str | list[str]:
    if not cell.lstrip().startswith("["):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return value if all(isinstance(each, str) for each in value) else cell


class HuggingFaceData(Source):
    """A data set of Hugging Face."""

    name: Literal["huggingface"]
    dataset: Annotated[str, StringConstraints(min_length=1)]
    """`organisation/name`, or a folder that `datasets` can read, relative to the study file."""
    config: str = ""
    split: str = "train"
    corpus: Places = ()
    fields: own.ItemFields

    def located(self, study: Path, given: Sequence[Path]) -> Self:
        """The same with whole paths."""
        folder = study.resolve().parent / self.dataset
        update = {"dataset": str(folder)} if folder.is_dir() else {}
        return super().located(study, given).model_copy(update=update)

    def read(self) -> Dataset:
        """The rows of the split, and the corpus."""
        rows = HubData(self.dataset, self.config, self.split).rows()
        return own.load(self.dataset, rows, self.fields, documents_of(self.corpus))


DataSource = Annotated[
    TelecomData
    | BioasqData
    | NaturalQuestionsData
    | NqOpenData
    | QasperData
    | TeleqnaData
    | JsonlData
    | CsvData
    | HuggingFaceData,
    Field(discriminator="name"),
]
"""Every data set, by its `name`."""
