"""The study file: what it may say, and what each part means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.data.sources import LARGEST_SEED, DataSource, Name
from tuneproof.results import LEXICAL
from tuneproof.study.design.arms import ArmSpec
from tuneproof.study.design.models import ApiSpec, BaseSpec, ModelSpec
from tuneproof.study.design.section import Section

RUBRIC_PATTERN = r"^[a-z][a-z0-9-]*@[0-9]+$"
RubricId = Annotated[str, StringConstraints(pattern=RUBRIC_PATTERN)]
LEXICAL_MEASURES = tuple(measure.name for measure in LEXICAL)
MEASURED_DEPTH = 10
"""nDCG@10 looks at so many passages."""


def _none_for(word: str) -> Callable[[Any], Any]:
    return lambda value: None if value == word else value


class SplitSpec(Section):
    """How questions are divided into tuning and test, by document cluster."""

    seed: int = Field(ge=0, le=LARGEST_SEED)
    test_share: float = Field(gt=0, lt=1)
    """Share of the clusters that testing gets."""
    test_items: int = Field(ge=1)
    """Test questions at most."""


class CorpusSpec(Section):
    """How documents become passages."""

    max_tokens: int = Field(default=200, ge=8)
    overlap_tokens: int = Field(default=0, ge=0)
    by: Literal["tokens", "sentences", "structure"] = "tokens"
    """Where passages begin and end."""


class RerankSpec(Section):
    """A model that reads the best passages again, together with the question."""

    model: str = Field(min_length=1)
    """Id or digest of the retriever's reranker; the study refuses another one."""
    depth: int = Field(default=20, ge=1, le=1000)
    """Passages that it reads."""


class RetrievalSpec(Section):
    """What each question's passages are."""

    mode: Literal["hybrid", "dense", "keyword"] = "hybrid"
    k: int = Field(default=5, ge=1, le=1000)
    """Passages in the prompt."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of the dense list in a hybrid search."""
    rerank: RerankSpec | None = None

    @property
    def depth(self) -> int:
        """Passages of each search: those of the prompt, and enough to measure retrieval."""
        return max(self.k, MEASURED_DEPTH)

    @property
    def rerank_depth(self) -> int:
        """Passages that are read again; 0 without reranking."""
        return 0 if self.rerank is None else max(self.depth, self.rerank.depth)


class PromptSpec(Section):
    """How the prompt shows passages."""

    passage_words: int | None = Field(default=None, ge=1)
    """Words to which each passage is cut; without it, none is cut."""


class GenerationSpec(Section):
    """Decoding; greedy, the same for every arm."""

    max_tokens: int = Field(default=256, ge=1)


class TrainingSpec(Section):
    """The grid of cells: every arm that uses pairs by size by seed."""

    sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, le=LARGEST_SEED)], ...] = Field(
        default=(1,), min_length=1
    )
    hyperparameters: Hyperparameters = Hyperparameters()


class JudgeSpec(Section):
    """How answers are scored."""

    rubrics: tuple[RubricId, ...] = Field(min_length=1)
    repeats: int = Field(default=10, ge=1, le=100)
    seed: int = Field(default=1, ge=0, le=LARGEST_SEED)
    temperature: float = Field(default=1.0, ge=0, le=2)
    compare: int = Field(default=0, ge=0, le=100)
    """Repeats of the question which answer of a primary comparison is better, each in both orders;
    0: it is not asked."""
    mode: Literal["sampled", "weighted"] = "sampled"
    """`weighted`: by the probabilities of the scores, where the judge's endpoint tells them."""
    joint: bool = False
    """All rubrics in one form, which is another instrument than a form for each."""
    settled_after: int = Field(default=0, ge=0, le=100)
    """Once so many first repeats have one score, no more are asked; 0: all are."""
    certificates: tuple[Path, ...] = ()
    """Files of `tuneproof judge calibrate`, relative to the study file; with any, the study does
    not begin unless each rubric has one by this judge with at least `kappa`."""
    kappa: float = Field(default=0.6, gt=0, le=1)


class PrimarySpec(Section):
    """One comparison, named before the run."""

    arm: str
    """An arm of the study, or one combination of its grid: all its seeds."""
    measure: str
    size: int | None = Field(default=None, ge=1)
    """Only cells of this size; without it, of every size."""
    model: Name | None = None
    """Only cells of this base; without it, of every base."""
    against: Name | None = None
    """An API model; without it, the baseline of the cell's own base."""


class ComparisonSpec(Section):
    """What is compared, and with which confidence."""

    baseline: Name = "baseline"
    """The arm that the others are compared with: the base model with its passages."""
    margin: dict[str, Annotated[float, Field(gt=0)]] = Field(min_length=1)
    """δ by measure, in the measure's own units."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    adjustment: Literal["bonferroni", "holm", "sequence"] = "bonferroni"
    """How the primary comparisons share the error: all intervals hold together; what is decided
    leaves its share to the rest; or they are read in the file's order until one does not decide."""
    primary: Annotated[tuple[PrimarySpec, ...] | None, BeforeValidator(_none_for("all"))] = ()
    """Empty: every tuned arm at its largest size; the word `all` (None here): every cell. Each
    by every judged criterion, or by `token_f1` where there is no judge."""


class ReaderCheckSpec(Section):
    """The base model, given the evidence among distractors."""

    facts: int = Field(default=12, ge=1, le=100)
    items: int = Field(default=100, ge=1)


class JudgeCheckSpec(Section):
    """The judge, on answers whose right scores are known."""

    forms: int = Field(default=300, ge=1)


class LengthCheckSpec(Section):
    """The judge, on the same content padded and trimmed."""

    answers: int = Field(default=50, ge=2)


class ChecksSpec(Section):
    """Measurements of the instruments themselves."""

    reader: ReaderCheckSpec | None = None
    judge: JudgeCheckSpec | None = None
    length: LengthCheckSpec | None = None


class CostsSpec(Section):
    """What answers take beside their quality; no score depends on it."""

    timed: int = Field(default=5, ge=0, le=1000)
    """Questions that each cell answers once more, alone, after the batch; 0: none."""
    currency: str = Field(default="USD", min_length=1, max_length=8)
    gpu_hour: float | None = Field(default=None, gt=0)
    """Price of an hour of the GPUs that serve one base model."""
    prompt_tokens: float | None = Field(default=None, ge=0)
    """Price of a million tokens of prompts; with `completion_tokens`."""
    completion_tokens: float | None = Field(default=None, ge=0)
    """Price of a million tokens of answers."""


class ForgettingSpec(Section):
    """Tasks of lm-eval, which the base model and each adapter do."""

    tasks: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    """As lm-eval names them."""
    command: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("lm-eval",), min_length=1
    )
    """How it is called; it stands in an environment of its own."""
    limit: int | None = Field(default=None, ge=1)
    """Items of each task; without it, all."""
    fewshot: int | None = Field(default=None, ge=0)
    """Examples in each prompt; without it, as the task has it."""
    include: Path | None = None
    """Folder of task files of one's own, relative to the study file."""
    tokenizer: str = ""
    """Folder or Hugging Face id; by default the base model's."""
    url: str = ""
    """Base URL of the generator's OpenAI API; by default that of services started here."""
    in_flight: int = Field(default=8, ge=1, le=1024)
    """Requests at once."""


class ServicesSpec(Section):
    """What `--up` starts the services with; flags win."""

    model: str = ""
    """Folder, relative to the study file, or a Hugging Face id."""
    judge: Name | None = None
    """Base of `models` that judges where no other judge is named; without it, the first."""
    rubrics: Path | None = None
    """Folder of rubric files, relative to the study file."""
    toy: bool = False
    """The model shows the mechanism only."""


class ExecutionSpec(Section):
    """How much of a study runs at once; no result depends on it."""

    stages: Literal["auto", "overlapping", "in-turn"] = "auto"
    """Whether answers begin while others train, and grades while others are answered."""
    searches: int = Field(default=32, ge=1, le=4096)
    """Queries that the retriever has at once."""
    trainings: int = Field(default=8, ge=1, le=64)
    """Runs that the trainer has at once; those beyond its workers wait in its queue."""
    answers: int = Field(default=256, ge=1, le=4096)
    """Prompts that the generator has at once."""
    grades: int = Field(default=64, ge=1, le=4096)
    """Answers that the judge has at once."""


class StudySpec(Section):
    """A whole study file."""

    study: Name
    description: str = ""
    dataset: DataSource
    split: SplitSpec
    corpus: CorpusSpec = CorpusSpec()
    retrieval: RetrievalSpec = RetrievalSpec()
    prompt: PromptSpec = PromptSpec()
    generation: GenerationSpec = GenerationSpec()
    references: Name = "full"
    """Style that answers are judged against."""
    models: tuple[ModelSpec, ...] = ()
    """Without them, the one base of `services.model`."""
    arms: tuple[ArmSpec, ...] = Field(min_length=1)
    training: TrainingSpec | None = None
    judge: Annotated[JudgeSpec | None, BeforeValidator(_none_for("none"))] = None
    comparison: ComparisonSpec
    checks: ChecksSpec = ChecksSpec()
    costs: CostsSpec = CostsSpec()
    forgetting: ForgettingSpec | None = None
    services: ServicesSpec = ServicesSpec()
    execution: ExecutionSpec = ExecutionSpec()

    @property
    def baseline(self) -> ArmSpec:
        """The arm that the others are compared with."""
        return next(arm for arm in self.arms if arm.name == self.comparison.baseline)

    @property
    def bases(self) -> tuple[BaseSpec, ...]:
        """The bases of `models`, in the file's order."""
        return tuple(model for model in self.models if isinstance(model, BaseSpec))

    @property
    def apis(self) -> tuple[ApiSpec, ...]:
        """The API models, in the file's order."""
        return tuple(model for model in self.models if isinstance(model, ApiSpec))

    def api(self, name: str) -> ApiSpec:
        """An API model by its name."""
        return next(each for each in self.apis if each.name == name)

    def hyperparameters_of(self, model: str) -> Hyperparameters:
        """Those that hold where an arm has none of its own.

        Args:
            model: a base's name; empty: that of `services.model`.
        """
        shared = self.training.hyperparameters if self.training is not None else Hyperparameters()
        base = next((each for each in self.bases if each.name == model), None)
        return shared if base is None else base.tuned_by(shared)

    @property
    def tuned(self) -> tuple[ArmSpec, ...]:
        """The tuned arms, in the file's order."""
        return tuple(arm for arm in self.arms if arm.tune is not None)

    @property
    def compared(self) -> tuple[ArmSpec, ...]:
        """Every arm but the baseline, in the file's order."""
        return tuple(arm for arm in self.arms if arm.name != self.comparison.baseline)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of pairs; none without a training."""
        return self.training.sizes if self.training is not None else ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of what is drawn and of the training."""
        return self.training.seeds if self.training is not None else (1,)


class DataSpec(BaseModel):
    """What commands about data read of a file: a study, or its `dataset` and `split` alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    study: str = ""
    """Where it is there, the file is a study."""
    dataset: DataSource
    split: SplitSpec | None = None
