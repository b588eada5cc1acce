"""The data sets that a study file can name: their keys, and how each is loaded.

A new data set is a class here, a loader in a module of its own, and a member of `DataSource`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tuneproof.data import bioasq, telecom
from tuneproof.data.items import Dataset, Item, JudgeForm
from tuneproof.servicekit.errors import InvalidInput

LARGEST_SEED = 2**32 - 1


class KnownWorld(Protocol):
    """A world whose right answers a program knows, so that it can examine the instruments."""

    def oracle_context(self, dataset: Dataset, item: Item, facts: int) -> list[str]:
        """Passages of `facts` facts, an item's evidence among them."""

    def judge_forms(self, count: int) -> list[JudgeForm]:
        """Answers whose right scores are known."""

    def score(self, reference: str, answer: str) -> Mapping[str, int]:
        """The right score of an answer, by criterion."""


class Source(BaseModel):
    """What every data set has. Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def located(self, study: Path, given: Sequence[Path]) -> Self:  # noqa: ARG002 - no file here
        """The same with the files that it is read from.

        Args:
            study: the study file; the paths in it are relative to its folder.
            given: files that the command line names; they win.

        Raises:
            InvalidInput: files are given to a data set that a program makes, or are missing.
        """
        if given:
            raise InvalidInput("--data does not fit: a program makes this data set")
        return self

    @abstractmethod
    def load(self) -> Dataset:
        """Reads or makes the data set.

        Raises:
            InvalidInput: its files cannot be used; the message lists all mistakes.
        """

    @property
    def world(self) -> KnownWorld | None:
        """The world behind the data; None where no program knows the right answers."""
        return None


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

    def load(self) -> Dataset:
        """The manual of this seed."""
        return telecom.generate(self.seed, self.documents, self.facts_per_document)

    @property
    def world(self) -> KnownWorld:
        """The generator of the manual."""
        return telecom.World(self.seed)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


class BioasqData(Source):
    """BioASQ's own JSON."""

    name: Literal["bioasq"]
    path: Annotated[tuple[Path, ...] | None, BeforeValidator(_as_list)] = None
    """Relative to the study file; `--data` wins."""

    def located(self, study: Path, given: Sequence[Path]) -> Self:
        """The same with whole paths."""
        folder = study.resolve().parent
        paths = tuple(path.resolve() for path in given) or tuple(
            (folder / path).resolve() for path in self.path or ()
        )
        if not paths:
            raise InvalidInput(
                f"{study} leaves open where its data are: say --data PATH with BioASQ's golden"
                " file (12B1_golden.json; registration at participants-area.bioasq.org)"
            )
        return self.model_copy(update={"path": paths})

    def load(self) -> Dataset:
        """The questions of all files, as one data set."""
        return bioasq.load(*(self.path or ()))


DataSource = Annotated[TelecomData | BioasqData, Field(discriminator="name")]
"""Every data set, by its `name`."""
