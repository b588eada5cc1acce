"""What a study found, as values; analysis, report and exports read nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from tuneproof.results.labels import Rating
from tuneproof.results.measure import Measure
from tuneproof.results.preferences import Preference
from tuneproof.results.usage import Usage

StratumName = Literal["retrieved", "missed", "unanswerable", "unknown"]
STRATA: tuple[StratumName, ...] = get_args(StratumName)
"""Kinds of test questions, in display order: a gold passage is among those of the prompt; none is;
the documents do not answer it; its gold is not known."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """One of the judge's n looks at an answer."""

    seed: int
    score: int | None
    """On the rubric's scale; None when this repeat could not be scored."""
    failure: str
    """Kind of failure (`no_form`, `cut_off` …); empty when scored."""
    completion: str
    """The judge's whole text, its reasons included."""
    expected: float | None = None
    """In the mode `weighted`: the expectation over the score's probabilities."""


@dataclass(frozen=True, slots=True)
class CriterionGrade:
    """One criterion's grade on one answer."""

    criterion: str
    rubric: str
    rubric_digest: str
    mean: float | None
    """Mean score over the repeats that could be scored; None where these are fewer than half of
    all: the answer is then unscored, which is not 0."""
    standard_deviation: float | None
    repeats: tuple[Repeat, ...]
    """All that were asked for, the lost ones included."""
    mode: str = "sampled"
    """`sampled` or `weighted`."""
    refused_parameters: tuple[str, ...] = ()
    """Those that the judge's endpoint refuses, and was asked without, as `temperature`."""

    @property
    def lost_repeats(self) -> int:
        """How many could not be scored."""
        return sum(repeat.score is None for repeat in self.repeats)


@dataclass(frozen=True, slots=True)
class Grade:
    """Everything that the judge found about one answer."""

    criteria: Mapping[str, CriterionGrade]
    """By criterion; empty when no judge model was asked."""
    lexical: Mapping[str, float]
    """`exact_match`, `token_f1`, `rouge_l`, each 0 to 1; and where the judge has a model for it,
    `embedding_similarity`, `bert_score`, each -1 to 1."""
    judge_model: str
    usage: Usage = field(default=Usage(), compare=False)


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A passage as the retriever gave it."""

    passage_id: str
    document_id: str
    text: str
    score: float
    gold: bool
    """It holds the item's evidence; where only documents are known, it is of a gold document."""


@dataclass(frozen=True, slots=True)
class ItemResult:
    """A test question and what was retrieved for it: the same for every cell."""

    id: str
    question: str
    references: Mapping[str, tuple[str, ...]]
    cluster: str
    retrieved: tuple[Retrieved, ...]
    answerable: bool = True
    """Whether the documents hold an answer."""
    gold_known: bool = True
    """Whether it is known what holds the evidence."""

    @property
    def stratum(self) -> StratumName:
        """Its kind; in `missed` and `unanswerable` a refusal is right."""
        if not self.answerable:
            return "unanswerable"
        if not self.gold_known:
            return "unknown"
        return "retrieved" if any(passage.gold for passage in self.retrieved) else "missed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one cell answered to one item."""

    cell: str
    item: str
    text: str
    finish_reason: str
    """`stop` or `length`."""
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    """From admission to the last token, in the generator."""
    served_by: str
    """Adapter reference, or the base model's name."""
    grade: Grade | None
    error: str = ""
    """Why there is no answer or no grade; empty when all went well."""


@dataclass(frozen=True, slots=True)
class Training:
    """How a cell's adapter was made."""

    run_id: str
    adapter_ref: str
    spec: Mapping[str, object]
    """Every value of the run, defaults included."""
    losses: tuple[tuple[int, float], ...]
    """Pairs of step and loss in nats per token."""
    provenance: Mapping[str, str]
    examples: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Alone:
    """Times of answers that a cell gave one at a time, after the batch; means over them."""

    answers: int
    seconds: float
    """From admission to the last token, in the generator."""
    first_token_seconds: float
    """From admission to the first one."""
    cached_share: float
    """Of the prompts' tokens, those that the prefix cache spared."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """A score on a task of lm-eval."""

    task: str
    metric: str
    value: float
    standard_error: float | None
    """As lm-eval tells it."""
    samples: int | None
    """Items of the task."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What answers cost, as the study file says: by tokens, or by time."""

    currency: str
    gpu_hour: float | None = None
    """Of an hour of the GPUs that serve one base model."""
    prompt_tokens: float | None = None
    """Of a million."""
    completion_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model whose answers the study has."""

    name: str
    """What the study calls it."""
    content: str
    """A base's digest, or where an API model is asked."""
    baseline: str
    """Name of its untuned cell."""
    is_api: bool = False
    """It is asked at an endpoint, as a baseline only; nothing is tuned."""
    input_price: float | None = None
    """Of a million prompt tokens, in the currency of the study's prices; None: not known."""
    output_price: float | None = None
    """Of a million completion tokens."""
    refused: tuple[str, ...] = ()
    """Settings of its decoding that its endpoint does not take, as `temperature`."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One column of the study: the baseline, or what is compared with it."""

    name: str
    """Unique in the study, as `short-references-200-seed1`, or `baseline`."""
    label: str
    """For people."""
    arm: str
    """The arm's name in the study file, of a grid with what sets the combination apart; cells of
    one arm differ in size or seed."""
    size: int
    """Pairs that it is tuned on or shows examples of; 0 for an arm without any."""
    seed: int
    training: Training | None
    tuned: bool = True
    """An adapter answers; else the base model does, with another prompt than the baseline's."""
    alone: Alone | None = None
    """None where no answer was timed alone."""
    forgetting: tuple[TaskScore, ...] = ()
    """Scores on lm-eval's tasks, of the baseline and the tuned cells."""
    imported: bool = False
    """Another system answered; the base model did not."""
    model: str = ""
    """Name of its `Model`."""
    closed_book: bool = False
    """The untuned base model answers the question alone, without passages and examples."""


@dataclass(frozen=True, slots=True)
class RetrievalQuality:
    """How well retrieval brought the evidence, over the test items."""

    k: int
    items: int
    success_at_5: float
    """Share of items with evidence among the first 5."""
    ndcg_at_10: float
    recall_at_5: float
    """Mean share of an item's gold passages among the first 5."""
    recall_ceiling_at_5: float
    """The most that recall@5 can reach, since items may have more than five gold passages."""
    unit: str
    """What counts as gold: `passage` or `document`."""


@dataclass(frozen=True, slots=True)
class ReaderCheck:
    """The base model alone, given the evidence among distractors."""

    facts: int
    items: int
    exact_match: float
    model: str = ""
    """Name of its `Model`."""


@dataclass(frozen=True, slots=True)
class JudgeCheck:
    """One criterion of the judge on answers whose right scores are known."""

    criterion: str
    forms: int
    """Answers with a known right score, those of the cells included."""
    from_cells: int
    """How many of them are real answers of the study's cells."""
    unscored: int
    exact: float
    """Share of forms whose rounded mean score is the right one."""
    weighted_kappa: float
    """Cohen's κ with quadratic weights, between rounded mean and right score."""
    mean_absolute_error: float
    confusion: tuple[tuple[int, ...], ...]
    """Rows: right score; columns: the judge's rounded mean; both in the order of `levels`."""
    levels: tuple[int, ...]
    """The scores of the rubric's scale, lowest first."""
    repeat_sd: float
    """Mean standard deviation of the repeats."""


@dataclass(frozen=True, slots=True)
class LengthProbe:
    """What a judge gives for length alone: the same content in two lengths."""

    criterion: str
    answers: int
    """Scored in both lengths."""
    unscored: int
    points: float
    """Mean gain for each doubling of the words, in the criterion's unit."""
    standard_error: float | None
    """By CR2; None where all are in one cluster."""
    clusters: int
    kind: str = "padded"
    """`padded`: said once and said twice; `trimmed`: with an empty opening and close, and without
    them."""


@dataclass(frozen=True, slots=True)
class PrimaryComparison:
    """A comparison that the study file named before the run."""

    cell: str
    """Name of a `Cell`."""
    against: str
    measure: str
    """A criterion, or a lexical measure as `token_f1`."""


@dataclass(frozen=True, slots=True)
class Looks:
    """Interim looks, planned before the run."""

    planned: int
    """As asked for."""
    taken: int
    """How many so far, this one included."""
    fractions: tuple[float, ...]
    """Of all items, what each look has seen; the last is 1. Fewer than planned where a cluster
    spans two looks."""


@dataclass(frozen=True, slots=True)
class StudyResults:
    """A finished study."""

    name: str
    description: str
    dataset: str
    synthetic: bool
    gold_only: bool
    toy_model: bool
    """The model ships with the project to show the mechanism; others may behave differently."""
    judge_model: str
    """Empty when no judge was configured: then there are lexical scores only."""
    self_judged: bool
    """The judge is the base model under test."""
    reference_style: str
    """Which references the answers were judged against."""
    items: tuple[ItemResult, ...]
    cells: tuple[Cell, ...]
    """The baseline first."""
    baseline: str
    """Name of the cell that the others are compared with; of several bases, the first's."""
    answers: tuple[Answer, ...]
    retrieval: RetrievalQuality | None
    reader_checks: tuple[ReaderCheck, ...]
    judge_checks: tuple[JudgeCheck, ...]
    primary: tuple[PrimaryComparison, ...]
    margin: Mapping[str, float]
    """δ by measure, in the measure's own units."""
    confidence: float
    """Of the primary comparisons together, as 0.95."""
    notes: tuple[str, ...]
    """Sentences for the report's head."""
    provenance: Mapping[str, str]
    """Digests, versions, precisions, seeds, addresses: by name, in display order."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    criteria: tuple[Measure, ...] = ()
    """What the judge's rubrics measure, in their order; empty without a judge."""
    prices: Prices | None = None
    """None where the study file gives none."""
    models: tuple[Model, ...] = ()
    """The first base's first."""
    labels: tuple[Rating, ...] = ()
    """What people said; empty where nobody was asked."""
    length_probes: tuple[LengthProbe, ...] = ()
    """By criterion, in the order of `criteria`; empty without a probe."""
    looks: Looks | None = None
    """None where the study is read once, at its end."""
    preferences: tuple[Preference, ...] = ()
    """Which of two answers the judge prefers; empty where it was not asked."""
    adjustment: str = "bonferroni"
    """How the primary comparisons share the error: `bonferroni`, `holm` or `sequence`."""

    @property
    def compared(self) -> tuple[Cell, ...]:
        """Every cell but the baselines, of which each model has one."""
        baselines = {self.baseline, *(model.baseline for model in self.models)}
        return tuple(cell for cell in self.cells if cell.name not in baselines)

    def baseline_of(self, cell: Cell) -> str:
        """Name of the baseline of a cell's own model."""
        return next((m.baseline for m in self.models if m.name == cell.model), self.baseline)

    @property
    def baseline_label(self) -> str:
        """What people call the baseline."""
        return next((cell.label for cell in self.cells if cell.name == self.baseline), "baseline")
