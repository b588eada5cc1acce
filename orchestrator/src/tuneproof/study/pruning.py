"""State that no study file refers to: finding it, and removing it.

What a study refers to is what it would look up: the work that its file, its data and its models
key now. So what an edited file left behind is found too.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tuneproof.study.state.store import State
from tuneproof.study.steps.answering import pool_task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.comparing import compared_pairs
from tuneproof.study.steps.forgetting import forgetting_tasks
from tuneproof.study.steps.timing import timed_tasks

_RUN_DIGITS = 24
"""Of a task's key, in the name of its run."""


@dataclass(frozen=True, slots=True)
class Unused:
    """One kind of what nothing refers to."""

    kind: str
    """As `answer`, `adapter`, `corpus folder`."""
    pieces: int
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Sweep:
    """Everything that can go."""

    keys: tuple[str, ...]
    """Of finished and of failed work."""
    studies: tuple[str, ...]
    """Names of studies whose last flags and times are remembered."""
    paths: tuple[Path, ...]
    """Files and folders beside the results file."""
    unused: tuple[Unused, ...]
    """The same, counted."""

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(each.size for each in self.unused)


def referenced(chain: Chain) -> set[str]:
    """The keys of all the work that a study would look up."""
    searches = chain.searches
    tasks = [
        *(corpus.task for corpus in searches.corpora()),
        *searches.retrieval_tasks().values(),
        *searches.neighbour_tasks().values(),
        *chain.training_tasks().values(),
        *(work.task for work in chain.answers()),
        *chain.grades().values(),
        *(work.task for work in chain.reader_answers()),
        *chain.reader_grades().values(),
        *chain.form_grades(),
        *(one.task for one in compared_pairs(chain) if one.task is not None),
        *(task for cell in timed_tasks(chain).values() for task in cell),
        *forgetting_tasks(chain).values(),
        *(pool_task(chain, model) for model in chain.plan.models),
    ]
    return {task.key for task in tasks}


def sweep_of(state: State, folder: Path, kept: Collection[str], studies: Iterable[str]) -> Sweep:
    """What nothing refers to.

    Args:
        folder: of the state.
        kept: keys that are referred to.
        studies: names of the studies that stay.
    """
    sizes: dict[str, list[int]] = {}
    gone: list[str] = []
    for key, kind, size in state.sizes():
        if key not in kept:
            gone.append(key)
            sizes.setdefault(kind, []).append(size)
    paths = list(_files(state, folder, set(kept), set(gone)))
    for kind, path in paths:
        sizes.setdefault(kind, []).append(_size(path))
    stay = set(studies)
    return Sweep(
        tuple(gone),
        tuple(name for name in state.studies() if name not in stay),
        tuple(path for _, path in paths),
        tuple(Unused(kind, len(each), sum(each)) for kind, each in sizes.items()),
    )


def remove(state: State, sweep: Sweep) -> None:
    """Removes it; the files first, so that a kill in between leaves the rows to find them by."""
    for path in sweep.paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    state.forget(sweep.keys, sweep.studies)


def _files(
    state: State, folder: Path, kept: set[str], gone: set[str]
) -> Iterator[tuple[str, Path]]:
    """Data, runs and adapters of trainings, and folders of corpora, by kind."""
    artifacts = folder / "artifacts"
    trainings = state.rows("training", kept)
    data = {str(inputs["data"]).removeprefix("sha256:") for inputs, _ in trainings}
    runs = {f"r-{key.removeprefix('sha256:')[:_RUN_DIGITS]}" for key in kept}
    for path in sorted((artifacts / "datasets").glob("*.jsonl")):
        if path.stem not in data:
            yield "tuning data", path
    for path in sorted((artifacts / "runs").glob("r-*")):
        if "-".join(path.name.split("-")[:2]) not in runs:
            yield "training run", path
    used = {str(output["adapter_ref"]) for _, output in trainings}
    made = {str(output["adapter_ref"]) for _, output in state.rows("training", gone)}
    for ref in sorted(made - used):
        yield from (("adapter", place) for place in _adapter_folders(folder, ref))
    searched = {str(output["name"]) for _, output in state.rows("corpus", kept)}
    frozen = {str(output["name"]) for _, output in state.rows("corpus", gone)}
    for name in sorted(frozen - searched):
        if (place := folder / "corpora" / name).is_dir():
            yield "corpus folder", place


def _adapter_folders(folder: Path, ref: str) -> Iterator[Path]:
    """Where an adapter lies: in the registry, and in the generator's cache."""
    name, _, digest = ref.partition("@")
    digits = digest.removeprefix("sha256:")
    if not _is_declared(folder / "artifacts", digits):
        places = (folder / "artifacts/adapters" / name / digits, folder / "generator" / digits)
        yield from (place for place in places if place.is_dir())


def _is_declared(artifacts: Path, digits: str) -> bool:
    """Whether a generator's pool names an adapter, in a declaration or an alias."""
    others = [
        path
        for path in artifacts.glob("*")
        if path.name not in ("adapters", "datasets", "runs") and path.is_dir()
    ]
    return any(
        digits in file.read_text("utf-8", "replace")
        for folder in others
        for file in folder.rglob("*")
        if file.is_file()
    )


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
