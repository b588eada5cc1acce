"""A study that ran, for programs: what it found, as values and as data frames.

study = Study.open("studies/demo.yaml")
answers = study.to_pandas()
answers.groupby("cell")["score_accuracy"].mean()
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneproof.results import StudyResults
from tuneproof.results.snapshot import results_from_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.collect import load_results
from tuneproof.study.design.identity import Identities, identify
from tuneproof.study.design.looks import plan_at
from tuneproof.study.design.prepare import Request, prepare, recall
from tuneproof.study.design.specfile import load_spec
from tuneproof.study.state.store import State, open_state
from tuneproof.study.status import is_complete, status_of
from tuneproof.study.steps.chain import Chain

if TYPE_CHECKING:
    import pandas as pd

    from tuneproof.analysis import Comparisons
    from tuneproof.analysis.rows import Row, TableName

STATE = Path(".tuneproof")


@contextmanager
def last_run(file: Path, state: Path, data: Path | None = None) -> Iterator[Chain]:
    """The chain of a study as its last run saw it.

    Args:
        data: the data set's file, where not that of the last run.

    Raises:
        InvalidInput: the study file or its data are wrong.
        NotFound: nothing ran in this state folder.
    """
    load_spec(file)  # A mistake in the file is reported before a state that is not there.
    with open_state(state, write=False) as results:
        yield chain_of(file, state, results, data)


def chain_of(file: Path, folder: Path, state: State, data: Path | None = None) -> Chain:
    """As `last_run`, on a state that is open.

    Args:
        folder: of the state.
    """
    remembered = recall(state, file)
    prepared = prepare(Request(file, folder, data), remembered=remembered)
    identities = (
        Identities.from_json(remembered["identities"])
        if remembered
        else identify(prepared.spec, prepared.sources)
    )
    plan = plan_at(prepared.plan, remembered.get("looks") if remembered else None)
    return Chain(plan, identities, state)


@dataclass(frozen=True)
class Study:
    """What a study found."""

    results: StudyResults
    design: Mapping[str, Any]
    """The study file's values, defaults included."""
    complete: bool
    """Whether nothing was missing when it was read."""

    @staticmethod
    def open(file: str | Path, state: str | Path = STATE, data: str | Path | None = None) -> Study:
        """Reads what the study in a file found so far; this needs no service.

        Args:
            state: the folder in which it ran.
            data: the data set's file, where not that of the last run.

        Raises:
            InvalidInput: the study file or its data are wrong.
            NotFound: nothing ran in this state folder.
        """
        with last_run(Path(file), Path(state), Path(data) if data else None) as chain:
            design = chain.plan.spec.model_dump(mode="json", by_alias=True)
            return Study(load_results(chain), design, is_complete(status_of(chain)))

    @staticmethod
    def read(file: str | Path) -> Study:
        """Reads what `tuneproof study export --format json` wrote.

        Raises:
            InvalidInput: the file cannot be read, or holds something else.
        """
        value = json_object(Path(file))
        results = results_from_json(value, str(file))
        return Study(results, value.get("design", {}), not any(a.error for a in results.answers))

    @cached_property
    def comparisons(self) -> Comparisons:
        """The study's comparisons with intervals and verdicts."""
        from tuneproof.analysis import compare  # noqa: PLC0415 - scipy takes long to load

        return compare(self.results)

    def rows(self, table: TableName = "answers") -> list[Row]:
        """A table of `tuneproof.analysis.rows`."""
        from tuneproof.analysis.rows import rows_of  # noqa: PLC0415 - see above

        return rows_of(table, self.results, self.comparisons)

    def to_pandas(self, table: TableName = "answers") -> pd.DataFrame:
        """A table as a data frame: `answers`, `repeats`, `cells` or `comparisons`.

        Raises:
            InvalidInput: pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 - an extra
        except ImportError:
            raise InvalidInput(
                "data frames need pandas: install it with `pip install 'tuneproof[pandas]'`"
            ) from None
        return pd.DataFrame(self.rows(table))


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InvalidInput: there is no such file, or it holds something else.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {path}") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise InvalidInput(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{path} is JSON, but not an object")
    return value
