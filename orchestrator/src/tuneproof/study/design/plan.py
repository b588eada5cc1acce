"""What a study will do: its cells, their tuning items, and the test questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from tuneproof.data.items import Dataset, Item
from tuneproof.data.splits import check_leakage, nested_subsets, split
from tuneproof.results import LEXICAL, Measure, PrimaryComparison
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.spec import StudySpec, TuneSpec

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """One point of the grid: the baseline, or an arm at a size and a seed."""

    name: str
    """Unique in the study."""
    label: str
    arm: str
    """The arm's name in the study file."""
    size: int
    """Tuning examples; 0 for the baseline."""
    seed: int
    tune: TuneSpec | None
    items: tuple[Item, ...]
    """What it is tuned on."""


@dataclass(frozen=True)
class Plan:
    """A study, with its data."""

    spec: StudySpec
    dataset: Dataset
    tuning: tuple[Item, ...]
    test: tuple[Item, ...]
    clusters: Mapping[str, str]
    """By item id: items that the split kept together, which the analysis takes as one draw."""
    cells: tuple[PlannedCell, ...]
    """The baseline first."""

    @cached_property
    def documents_digest(self) -> str:
        """`sha256:<hex>` over the documents of the corpus."""
        rows = [
            [document.id, document.title, document.text, dict(document.metadata)]
            for document in self.dataset.documents
        ]
        return sha256_of_json(sorted(rows, key=lambda row: str(row[0])))

    @property
    def baseline(self) -> PlannedCell:
        """The cell that the others are compared with."""
        return next(cell for cell in self.cells if cell.arm == self.spec.comparison.baseline)

    @property
    def tuned(self) -> tuple[PlannedCell, ...]:
        """The cells that are tuned."""
        return tuple(cell for cell in self.cells if cell.tune is not None)

    def primary(self, criteria: tuple[Measure, ...]) -> tuple[PrimaryComparison, ...]:
        """The comparisons that the file names, by cell.

        Args:
            criteria: what the judge scores; empty without a judge.

        Raises:
            InvalidInput: a measure that nothing measures, one without a margin, or a margin as
                wide as the measure's range.
        """
        named = self.spec.comparison.primary
        if named is None:
            names = [measure.name for measure in criteria] or ["token_f1"]
            pairs = [(arm.name, name) for arm in self.spec.tuned for name in names]
        else:
            pairs = [(each.arm, each.measure) for each in named]
        _check_measures({measure for _, measure in pairs}, criteria, self.spec)
        return tuple(
            PrimaryComparison(cell.name, self.baseline.name, measure)
            for arm, measure in pairs
            for cell in self.tuned
            if cell.arm == arm
        )


def make_plan(spec: StudySpec, dataset: Dataset) -> Plan:
    """Divides the data and lays out the grid.

    Raises:
        InvalidInput: too few questions, a leak between tuning and test, or questions without a
            reference answer of a style that the study uses.
    """
    parts = split(
        dataset,
        seed=spec.split.seed,
        test_share=spec.split.test_share,
        test_items=spec.split.test_items,
    )
    check_leakage(parts, dataset)
    _check_references(spec, parts.tuning, parts.test)
    base = spec.baseline
    cells = [
        PlannedCell(base.name, base.name, base.name, 0, 0, None, ()),
        *_tuned(spec, parts.tuning),
    ]
    return Plan(spec, dataset, parts.tuning, parts.test, parts.clusters, tuple(cells))


def _tuned(spec: StudySpec, tuning: tuple[Item, ...]) -> list[PlannedCell]:
    if spec.training is None:
        return []
    sizes, seeds = spec.training.sizes, spec.training.seeds
    cells = []
    for seed in seeds:
        subsets = nested_subsets(tuning, sizes, seed)
        for arm in spec.tuned:
            for size in sizes:
                name = f"{arm.name}-{size}-s{seed}"
                label = arm.name if len(sizes) == len(seeds) == 1 else f"{arm.name} {size} #{seed}"
                items = tuple(subsets[size])
                cells.append(PlannedCell(name, label, arm.name, size, seed, arm.tune, items))
    order = [arm.name for arm in spec.tuned]
    return sorted(cells, key=lambda cell: (order.index(cell.arm), cell.size, cell.seed))


def _check_references(spec: StudySpec, tuning: tuple[Item, ...], test: tuple[Item, ...]) -> None:
    wanted = [(spec.references, test, "judging")]
    wanted += [(arm.tune.references, tuning, arm.name) for arm in spec.tuned if arm.tune]
    mistakes = []
    for style, items, purpose in wanted:
        lacking = [item.id for item in items if not item.references.get(style)]
        if lacking:
            styles = sorted({name for item in items for name in item.references})
            shown = ", ".join(lacking[:_SHOWN]) + (" …" if len(lacking) > _SHOWN else "")
            mistakes.append(
                f"{len(lacking)} of {len(items)} questions lack a {style!r} reference answer,"
                f" which {purpose} needs (they have {', '.join(styles)}): {shown}"
            )
    if mistakes:
        raise InvalidInput("\n".join(mistakes), field="references")


def _check_measures(measures: set[str], criteria: tuple[Measure, ...], spec: StudySpec) -> None:
    known = {measure.name: measure for measure in (*criteria, *LEXICAL)}
    mistakes = [
        f"nothing measures {measure!r}; there are {', '.join(known)}"
        for measure in sorted(measures - set(known))
    ]
    mistakes += [
        f"a margin of {margin:g} covers every difference of {name} ({known[name].words}), so each"
        " verdict would be equivalent: name a smaller one"
        for name, margin in spec.comparison.margin.items()
        if name in known and (limits := known[name].limits) is not None and margin >= limits[1]
    ]
    mistakes += [
        f"{measure} needs a margin: `comparison: {{margin: {{{measure}: 0.25}}}}`"
        for measure in sorted(measures & set(known) - set(spec.comparison.margin))
    ]
    if mistakes:
        raise InvalidInput("\n".join(mistakes), field="comparison")
