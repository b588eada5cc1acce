"""What a study will do: its cells, their tuning items, and the test questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.data.answers import GivenAnswers
from tuneproof.data.evaluation import has_gold
from tuneproof.data.items import Dataset, Document, Item
from tuneproof.data.splits import check_leakage, nested_subsets, split
from tuneproof.results import LEXICAL, Looks, Measure, PrimaryComparison
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.arms import ArmSpec, TuneSpec
from tuneproof.study.design.spec import StudySpec

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """One point of the grid: an arm, at a size and a seed where it uses pairs."""

    name: str
    """Unique in the study."""
    label: str
    recipe: str
    """The arm's name in the study file; with a grid, and what sets this combination apart."""
    arm: ArmSpec
    size: int
    """Pairs that it is tuned on or shows examples of; 0 for an arm without any."""
    seed: int
    items: tuple[Item, ...]
    """The pairs."""
    hyperparameters: Hyperparameters
    """Of its training."""
    model: str = ""
    """What the study calls its model; empty where the file lists none."""
    adapter: str = ""
    """Name of its adapter: the cell's, without the model's; empty where none is trained."""
    is_api: bool = False
    """An API model answers."""

    @property
    def tune(self) -> TuneSpec | None:
        """What it is tuned on; None where the base model answers."""
        return self.arm.tune

    @property
    def shows_passages(self) -> bool:
        """Whether tuning prompts or examples hold the passages of its pairs."""
        parts = (self.arm.tune, self.arm.examples)
        return any(part is not None and part.context == "retrieved" for part in parts)


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
    imported: Mapping[str, GivenAnswers] = field(default_factory=dict)
    """Answers of other systems, by arm."""
    model: str = ""
    """Folder or id of the base model, where its tokenizer is; empty: only services know. Of
    several, the first."""
    bases: Mapping[str, str] = field(default_factory=dict)
    """The same of each base that the file lists, by its name."""
    asked_first: tuple[Item, ...] | None = None
    """Test questions of the interim looks so far; None: all are asked."""
    looks: Looks | None = None
    """None where the study is read once."""

    @property
    def asked(self) -> tuple[Item, ...]:
        """The test questions that are asked now."""
        return self.test if self.asked_first is None else self.asked_first

    @cached_property
    def documents_digest(self) -> str:
        """`sha256:<hex>` over the documents of the corpus."""
        return digest_of(self.dataset.documents)

    @property
    def models(self) -> tuple[str, ...]:
        """What the study calls its models, bases first; `("",)` where the file lists none."""
        return tuple(dict.fromkeys(cell.model for cell in self.cells))

    @cached_property
    def baselines(self) -> Mapping[str, PlannedCell]:
        """The untuned cell of each model, an API model's own included."""
        name = self.spec.comparison.baseline
        return {cell.model: cell for cell in self.cells if cell.arm.name == name}

    @property
    def baseline(self) -> PlannedCell:
        """The first base's."""
        return next(iter(self.baselines.values()))

    @property
    def tuned(self) -> tuple[PlannedCell, ...]:
        """The cells that are tuned."""
        return tuple(cell for cell in self.cells if cell.tune is not None)

    @property
    def compared(self) -> tuple[PlannedCell, ...]:
        """Every cell but the baselines."""
        return tuple(cell for cell in self.cells if cell is not self.baselines[cell.model])

    def part(self, model: str) -> Plan:
        """The same study of one model alone."""
        cells = tuple(cell for cell in self.cells if cell.model == model)
        return replace(self, cells=cells, model=self.bases.get(model, self.model))

    def primary(self, criteria: tuple[Measure, ...]) -> tuple[PrimaryComparison, ...]:
        """The comparisons that the file names, by cell.

        Args:
            criteria: what the judge scores; empty without a judge.

        Raises:
            InvalidInput: a measure that nothing measures, one without a margin, or a margin as
                wide as the measure's range.
        """
        found = self.named([measure.name for measure in criteria] or ["token_f1"])
        _check_measures({one.measure for one in found}, criteria, self.spec)
        return tuple(found)

    def named(self, measures: Sequence[str]) -> list[PrimaryComparison]:
        """The primary comparisons as the file names them, each once.

        Args:
            measures: where the file names none.
        """
        primary = self.spec.comparison.primary
        if not primary:
            cells = self.compared if primary is None else self._largest()
            return [
                PrimaryComparison(cell.name, self.baselines[cell.model].name, measure)
                for cell in cells
                for measure in measures
            ]
        found = [
            PrimaryComparison(
                cell.name, self.baselines[each.against or cell.model].name, each.measure
            )
            for each in primary
            for cell in self.cells
            if not cell.is_api
            and each.arm in (cell.arm.name, cell.recipe)
            and each.size in (None, cell.size)
            and each.model in (None, cell.model)
        ]
        return list(dict.fromkeys(found))

    def _largest(self) -> list[PlannedCell]:
        """Every tuned arm at its largest size; where none is tuned, every other arm."""
        cells = self.tuned or self.compared
        largest = max((cell.size for cell in cells), default=0)
        return [cell for cell in cells if cell.size == largest or cell.tune is None]


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
    return Plan(
        spec, dataset, parts.tuning, parts.test, parts.clusters, cells_of(spec, parts.tuning)
    )


def digest_of(documents: Iterable[Document]) -> str:
    """`sha256:<hex>` over documents, whatever their order."""
    rows = [[each.id, each.title, each.text, dict(each.metadata)] for each in documents]
    return sha256_of_json(sorted(rows, key=lambda row: str(row[0])))


def cells_of(spec: StudySpec, tuning: tuple[Item, ...]) -> tuple[PlannedCell, ...]:
    """The grid, model by model: the baseline first, then the arms in the file's order; an API model
    has the baseline alone.

    Raises:
        InvalidInput: a size is larger than the pool, or two cells have one name.
    """
    drawn = [size for arm in spec.compared for size in sizes_of(arm, spec)]
    subsets = {seed: nested_subsets(tuning, drawn, seed) for seed in spec.seeds}
    cells: list[PlannedCell] = []
    for model in [base.name for base in spec.bases] or [""]:
        cells.append(_without_pairs(spec.baseline, spec, model))
        for arm in spec.compared:
            if not arm.models or model in arm.models:
                cells += _cells_of_arm(arm, spec, model, subsets)
    cells += [_without_pairs(spec.baseline, spec, api.name, is_api=True) for api in spec.apis]
    times = Counter(cell.name for cell in cells)
    if twice := [name for name, count in times.items() if count > 1]:
        raise InvalidInput(
            f"two cells are called {_some(twice)}: give their arms other names", field="arms"
        )
    return tuple(cells)


def _cells_of_arm(
    arm: ArmSpec, spec: StudySpec, model: str, subsets: Mapping[int, Mapping[int, Sequence[Item]]]
) -> Iterator[PlannedCell]:
    """The cells of an arm that is compared, from its items by seed and size."""
    sizes = sizes_of(arm, spec)
    if not sizes:
        yield _without_pairs(arm, spec, model)
        return
    alone = len(sizes) == len(spec.seeds) == 1
    for recipe, values in arm.recipes(spec.hyperparameters_of(model)):
        for size, seed in product(sorted(sizes), sorted(spec.seeds)):
            name = f"{recipe}-{size}-s{seed}"
            yield PlannedCell(
                _of_model(name, "-", spec, model),
                _of_model(recipe if alone else f"{recipe} {size} #{seed}", ": ", spec, model),
                recipe,
                arm,
                size,
                seed,
                tuple(subsets[seed][size]),
                values,
                model=model,
                adapter=name if arm.tune is not None else "",
            )


def sizes_of(arm: ArmSpec, spec: StudySpec) -> tuple[int, ...]:
    """Numbers of pairs at which an arm has cells; none for one that uses no pairs.

    Random examples are a draw of k: more pairs to draw them from change nothing.
    """
    if arm.tune is not None or (arm.examples is not None and arm.examples.choose == "nearest"):
        return spec.sizes
    return () if arm.examples is None else (arm.examples.k,)


def _without_pairs(
    arm: ArmSpec, spec: StudySpec, model: str, *, is_api: bool = False
) -> PlannedCell:
    name = _of_model(arm.name, "-", spec, model)
    label = model if is_api else _of_model(arm.name, ": ", spec, model)
    values = spec.hyperparameters_of(model)
    return PlannedCell(name, label, arm.name, arm, 0, 0, (), values, model=model, is_api=is_api)


def _of_model(name: str, between: str, spec: StudySpec, model: str) -> str:
    """A name with its model's before it, where there are several models."""
    return f"{model}{between}{name}" if len(spec.models) > 1 else name


def _check_references(spec: StudySpec, tuning: tuple[Item, ...], test: tuple[Item, ...]) -> None:
    wanted = [(spec.references, test, "judging")]
    wanted += [
        (part.references, tuning, arm.name)
        for arm in spec.arms
        for part in (arm.tune, arm.examples)
        if part is not None
    ]
    mistakes = [_without_gold(arm, tuning) for arm in spec.tuned if arm.tune and arm.tune.raft]
    mistakes = list(filter(None, mistakes))
    for style, items, purpose in wanted:
        lacking = [item.id for item in items if not item.references.get(style)]
        if lacking:
            styles = sorted({name for item in items for name in item.references})
            mistakes.append(
                f"{len(lacking)} of {len(items)} questions lack a {style!r} reference answer,"
                f" which {purpose} needs (they have {', '.join(styles)}): {_some(lacking)}"
            )
    if mistakes:
        raise InvalidInput("\n".join(mistakes), field="references")


def _without_gold(arm: ArmSpec, tuning: tuple[Item, ...]) -> str:
    """Why an arm cannot be tuned with gold passages and distractors; empty where it can."""
    lacking = [item.id for item in tuning if item.answerable and not has_gold(item)]
    if not lacking:
        return ""
    return (
        f"of {len(lacking)} of {len(tuning)} questions the gold documents are unknown, which the"
        f" RAFT of {arm.name} needs: {_some(lacking)}"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")


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
