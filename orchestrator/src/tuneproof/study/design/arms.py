"""The arms of a study file: what each is tuned on, and what its prompt holds.

An arm with `tune` has adapters. One with `examples` asks the base model with question-answer pairs
in its prompt. One with `import` has the answers of another system. One with none of them is the
baseline, or asks the base model without passages.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tuneproof.adapters.hyperparameters import (
    Alpha,
    BatchSize,
    Epochs,
    Hyperparameters,
    LearningRate,
    Rank,
)
from tuneproof.data.sources import Name
from tuneproof.study.design.models import SomeModels
from tuneproof.study.design.section import Section

Context = Literal["retrieved", "none"]


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _as_lists(value: Any) -> Any:
    is_one = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    return [value] if is_one else value


class GridSpec(Section):
    """Hyper-parameters of one arm. One with several values makes cells of each."""

    rank: Annotated[tuple[Rank, ...], BeforeValidator(_as_list)] = ()
    alpha: Annotated[tuple[Alpha, ...], BeforeValidator(_as_list)] = ()
    learning_rate: Annotated[tuple[LearningRate, ...], BeforeValidator(_as_list)] = ()
    epochs: Annotated[tuple[Epochs, ...], BeforeValidator(_as_list)] = ()
    effective_batch_size: Annotated[tuple[BatchSize, ...], BeforeValidator(_as_list)] = ()
    target_modules: Annotated[tuple[tuple[str, ...], ...], BeforeValidator(_as_lists)] = ()

    def points(self, study: Hyperparameters) -> Iterator[tuple[str, Hyperparameters]]:
        """Every combination, with the values by which it differs from the others as its name.

        Args:
            study: the study's own, which hold where this says nothing.

        Raises:
            ValueError: a combination would train nothing.
        """
        named = {name: values for name in GRID if (values := getattr(self, name))}
        for choice in product(*(range(len(values)) for values in named.values())):
            at = dict(zip(named, choice, strict=True))
            values = {name: named[name][place] for name, place in at.items()}
            words = [
                f"{GRID[name]}-{_written(values[name], place)}"
                for name, place in at.items()
                if len(named[name]) > 1
            ]
            merged = Hyperparameters.model_validate({**study.model_dump(), **values})
            yield "-".join(words), merged


GRID = {
    "rank": "rank",
    "alpha": "alpha",
    "learning_rate": "lr",
    "epochs": "epochs",
    "effective_batch_size": "batch",
    "target_modules": "modules",
}
"""The hyper-parameters that an arm may set, with their words in a cell's name."""


class RaftSpec(Section):
    """Tuning prompts as in RAFT (Zhang et al. 2024, arXiv 2403.10131): a gold passage among
    distractors, or distractors only; as many passages as in serving."""

    gold_share: float = Field(default=0.8, ge=0, le=1)
    """Probability that a question's prompt holds a gold passage."""


class TuneSpec(Section):
    """What an arm is tuned on."""

    references: Name
    """Style of the reference answers that it learns."""
    context: Context = "retrieved"
    """`retrieved`: the passages that serving would bring; `none`: the question alone."""
    raft: RaftSpec | None = None
    """Gold passages and distractors instead of what serving would bring."""
    hyperparameters: GridSpec = GridSpec()


class ExamplesSpec(Section):
    """Pairs that an arm's prompt shows before the question, from those that tuning may use."""

    k: int = Field(ge=1, le=100)
    references: Name
    """Style of the answers that they show."""
    choose: Literal["random", "nearest"] = "random"
    """`random`: the same for every question, drawn by the seed. `nearest`: of the pairs that
    tuning takes at each size, those whose questions the retriever finds nearest."""
    context: Context = "retrieved"
    """`retrieved`: each with its passages; `none`: questions and answers alone."""


class ImportSpec(Section):
    """Answers that another system gave: nothing is tuned and nothing generated."""

    path: Path
    """JSON Lines or CSV, relative to the study file: an answer to each test question."""
    system: str = ""
    """What gave them, for the report; by default the arm's name."""
    id: str = "id"
    """The field with the question's id."""
    answer: str = "answer"
    """The field with the answer."""


class ArmSpec(Section):
    """The baseline, or what is compared with it."""

    name: Name
    context: Context = "retrieved"
    """What its prompt holds when it answers: the passages, or the question alone."""
    tune: TuneSpec | None = None
    examples: ExamplesSpec | None = None
    imported: ImportSpec | None = Field(default=None, alias="import")
    models: SomeModels = ()
    """The bases that have this arm; empty: every base."""

    @property
    def closed_book(self) -> bool:
        """Whether the untuned base model is asked, without passages and examples."""
        others = (self.tune, self.examples, self.imported)
        return self.context == "none" and others == (None, None, None)

    def recipes(self, study: Hyperparameters) -> list[tuple[str, Hyperparameters]]:
        """The arm under its name, or, with a grid, each of its combinations under its own."""
        if self.tune is None:
            return [(self.name, study)]
        points = self.tune.hyperparameters.points(study)
        return [("-".join(filter(None, (self.name, words))), values) for words, values in points]


def _written(value: Any, place: int) -> str:
    """A value in the characters that an adapter's name may have: 0.00015 is `15e-5`."""
    if isinstance(value, tuple):
        return str(place + 1)
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    mantissa = "".join(map(str, digits))
    power = int(exponent)
    return mantissa + "0" * power if power >= 0 else f"{mantissa}e{power}"
