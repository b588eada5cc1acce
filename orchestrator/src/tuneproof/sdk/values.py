"""The arguments and results of the services' calls, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tuneproof.servicekit.errors import TuneproofError

Messages = Sequence[Mapping[str, str]]
"""A chat: mappings with `role` (`system`, `user`, `assistant`) and `content`."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents become passages."""

    max_tokens: int = 0
    """Longest passage in the embedder's tokens; 0: the service's default."""
    overlap_tokens: int = 0
    """Most tokens that a passage shares with the one before."""
    by: str = "tokens"
    """Where passages begin and end: `tokens`, `sentences` or `structure`."""


@dataclass(frozen=True, slots=True)
class CorpusInfo:
    """A corpus as its service knows it."""

    name: str
    state: str
    """`open` accepts documents, `frozen` can be searched."""
    digest: str
    """`sha256:<hex>` over passages, embedder and chunking; empty until frozen."""
    chunking: Chunking
    embedder: str
    embedder_digest: str
    dimension: int
    """Length of a vector."""
    documents: int
    passages: int
    labels: Mapping[str, str]

    @property
    def frozen(self) -> bool:
        """Whether it can be searched."""
        return self.state == "frozen"


@dataclass(frozen=True, slots=True)
class DamagedCorpus:
    """A corpus that its service cannot read."""

    name: str
    error: TuneproofError


@dataclass(frozen=True, slots=True)
class RejectedDocument:
    """A document that could not be stored."""

    id: str
    error: TuneproofError


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What the service did with the documents."""

    added: int
    unchanged: int
    """Held already, with the same content."""
    passages_added: int
    rejected: tuple[RejectedDocument, ...]
    """As many as the service lists: 1,000 for each stream of documents."""
    rejected_count: int
    """All that could not be stored."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that a search found."""

    id: str
    document_id: str
    text: str
    start: int
    end: int
    """Offsets into the document's text in code points; the end is exclusive."""
    score: float
    """Higher is nearer; comparable within one search only. A reranker's where one was asked for."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    """Of the document."""
    first_score: float | None = None
    """The search's own score of a reranked passage."""


@dataclass(frozen=True, slots=True)
class Rerank:
    """How the best passages of a search are read again, together with the query."""

    depth: int = 0
    """Passages that are read again, k or more; 0: the service's default."""
    expected_reranker: str = ""
    """Id or digest of the reranker; another one is refused. Empty accepts any."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn; greedy by default."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerateInput:
    """One request to the generator."""

    messages: Messages
    model: str = ""
    """Adapter reference `name@sha256:<hex>` or alias; empty: the base model."""
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class Generation:
    """One whole answer."""

    text: str
    finish_reason: str
    """`stop` or `length`."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Prompt tokens that the prefix cache spared."""
    base_model: str
    adapter_ref: str
    """Empty: the base model answered."""
    replica: str
    stage_seconds: Mapping[str, float]
    """`queue`, `first_token`, `decode`: one after the other."""

    @property
    def served_by(self) -> str:
        """Adapter reference, or the base model's name."""
        return self.adapter_ref or self.base_model

    @property
    def seconds(self) -> float:
        """From admission to the last token, in the generator."""
        return sum(self.stage_seconds.values())


@dataclass(frozen=True, slots=True)
class Restarted:
    """The answering replica is lost: the pieces so far are void, the answer begins again."""

    reason: str
    attempt: int
    """The attempt that begins now; the first was 1."""


@dataclass(frozen=True, slots=True)
class GradeInput:
    """One answer to grade."""

    question: str
    answer: str
    references: tuple[str, ...]
    """At least one; the judge reads the first, the lexical scores take the best."""
    passages: tuple[str, ...] = ()
    rubrics: tuple[str, ...] = ()
    """Ids as `accuracy@1`; none: lexical scores only, and no model is asked."""
    repeats: int = 10
    seed: int = 0
    temperature: float | None = None
    """None: the service's default, 1.0."""
    mode: str = "sampled"
    """`sampled` or `weighted`."""
    retries: int | None = None
    """How often a repeat without a score is asked again; None: the service's default, 1."""
    settled_after: int = 0
    """Once so many first repeats have one score, no more are asked; 0: all are."""
    joint: bool = False
    """All rubrics in one form, whose grades have digests of their own."""


@dataclass(frozen=True, slots=True)
class CompareInput:
    """Two answers to compare."""

    question: str
    first: str
    second: str
    references: tuple[str, ...] = ()
    passages: tuple[str, ...] = ()
    rubrics: tuple[str, ...] = ()
    """Ids, at least one."""
    repeats: int = 10
    """Each asks twice: in both orders."""
    seed: int = 0
    temperature: float | None = None
    """None: the service's default, 1.0."""
    retries: int | None = None
    """As in `GradeInput`."""


@dataclass(frozen=True, slots=True)
class PairRepeat:
    """One repeat of a comparison: `first`, `second` or `tie`; empty where the order failed."""

    in_order: str
    """Where the first answer was shown first."""
    reversed: str
    """Where the second one was."""
    failures: tuple[str, ...] = ()
    """Kinds of failure (`no_form`, `timeout` …) of the orders that failed."""


@dataclass(frozen=True, slots=True)
class PairGrade:
    """One pair's comparison by one criterion."""

    criterion: str
    rubric: str
    rubric_digest: str
    preference: float | None
    """1 for the first answer in all repeats and orders, -1 for the second; None: unscored."""
    consistency: float | None
    """Share of the scored repeats whose orders agree."""
    position_bias: float | None
    """How much more often the judge chose what it was shown first; 0 is fair."""
    repeats: tuple[PairRepeat, ...]


@dataclass(frozen=True, slots=True)
class PairComparison:
    """Everything that the judge found about a pair."""

    criteria: Mapping[str, PairGrade]
    """By criterion."""
    judge_model: str


@dataclass(frozen=True, slots=True)
class StepsDraft:
    """Evaluation steps that a judge model wrote."""

    steps: tuple[str, ...]
    judge_model: str
