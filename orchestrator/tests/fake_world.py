"""What the fakes of the services share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tuneproof.judge.v1 import judge_pb2 as jud
from tuneproof.retriever.v1 import retriever_pb2 as ret
from tuneproof.trainer.v1 import trainer_pb2 as tra


@dataclass
class World:
    """What the fakes share, and what a test sets or reads."""

    model: str = "tiny"
    judge_model: str = "tiny"
    config_digest: str = ""
    """Of the base; empty: not told."""
    delay: float = 0.0
    """Seconds that each answer and each grade takes."""
    wait_for: int = 0
    """Of so many answers in all each waits until the batch, or else all that is left, is under
    way."""
    calls: Counter[str] = field(default_factory=Counter)
    """By call; for streams by item."""
    prompts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Answers given, by model and prompt."""
    grades: Counter[tuple[str, str, tuple[str, ...]]] = field(default_factory=Counter)
    """Grades given, by question, answer and rubrics."""
    failing_questions: set[str] = field(default_factory=set)
    """Questions whose answers fail."""
    failing_searches: set[str] = field(default_factory=set)
    """Queries whose search fails."""
    reranks: list[ret.Rerank] = field(default_factory=list)
    """What the searches said of reranking, where they did."""
    made_by_another: bool = False
    """Another study freezes each corpus before this one has filled it."""
    lost_freezes: int = 0
    """So many times the retriever is lost while it freezes."""
    failing_runs: set[str] = field(default_factory=set)
    """Adapter names whose training fails."""
    unscored: set[str] = field(default_factory=set)
    """Answers that the judge cannot score."""
    timeouts: dict[str, int] = field(default_factory=dict)
    """By answer: its first so many repeats get no answer from the judge's endpoint."""
    late_choices: dict[str, int] = field(default_factory=dict)
    """Likewise, by a comparison's first answer."""
    broken_streams: int = 0
    """So many streams of answers break off, the first after its third answer."""
    answers_before_break: int = 3
    """Answers that the streams which break off give in all."""
    alone: list[str] = field(default_factory=list)
    """Models of the answers that were asked for one at a time."""
    wrong_adapter: bool = False
    """The generator lets the base model answer for an adapter."""
    max_loras: int = 1
    max_cpu_loras: int = 1
    batch: int = 4
    """Answers that the generator gives at once."""
    train_after: asyncio.Event | None = None
    """Trainings wait for it."""
    events: list[str] = field(default_factory=list)
    """`trained`, `answered` and `graded` as they happen."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Model and prompt, in the order in which the generator takes them."""
    graded: list[tuple[str, str]] = field(default_factory=list)
    """Question and answer, in the order in which the judge takes them."""
    ways: list[tuple[int, bool, int]] = field(default_factory=list)
    """In the same order: mode, whether in one form, after how many equal scores it ends."""
    streams: Counter[str] = field(default_factory=Counter)
    """By call."""
    on_grade: Callable[[], None] = lambda: None
    """Called after each grade."""
    embedder: str = "sha256:" + "e" * 64
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    corpora: dict[str, ret.Corpus] = field(default_factory=dict)
    documents: dict[str, dict[str, ret.Document]] = field(default_factory=dict)
    runs: dict[str, tra.Run] = field(default_factory=dict)
    adapters: set[str] = field(default_factory=set)
    most_adapters: int = 0
    """That were declared at once."""
    rubrics: list[jud.Rubric] = field(default_factory=list)
