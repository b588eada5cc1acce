"""The stages under way: counted, timed, shown on the terminal, and stored with each output."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tuneproof.study.progress import Progress, Stage
from tuneproof.study.state.store import Count, State, Task

CORPUS = "corpus"
RETRIEVAL = "retrieval"
TRAINING = "training"
ANSWERS = "answers"
GRADES = "grades"
READER_ANSWERS = "reader check: answers"
READER_SCORES = "reader check: scores"
JUDGE_CHECK = "judge check"
COMPARISONS = "comparisons"
TIMING = "timing"
FORGETTING = "forgetting"


class Tally:
    """One stage's count while a run adds to it.

    Args:
        count: as the run found it.
        clock: monotonic seconds.
    """

    def __init__(
        self, count: Count, progress: Progress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._found = count
        self._progress = progress
        self._clock = clock
        self._shown: Stage | None = None
        self._display = ExitStack()
        self._begun = 0.0
        self._in_hand = 0
        self._seconds = 0.0
        self._fresh = 0
        self._done, self._failed = count.done, count.failed

    @property
    def count(self) -> Count:
        """As it is now."""
        found = self._found
        return Count(
            found.study,
            found.stage,
            self._done,
            found.total,
            self._failed,
            self._fresh,
            self.seconds,
        )

    @property
    def seconds(self) -> float:
        """For which this run had something of the stage in hand."""
        return self._seconds + (self._clock() - self._begun if self._in_hand else 0.0)

    @property
    def fresh(self) -> int:
        """Pieces that this run has done."""
        return self._fresh

    def try_again(self) -> None:
        """What failed before counts as missing."""
        self._failed = 0

    def begin(self) -> None:
        """A piece is in hand: the stage is shown from the first one on."""
        if self._shown is None:
            found = self._found
            self._shown = self._display.enter_context(
                self._progress.stage(found.stage, found.total, self._done)
            )
        if not self._in_hand:
            self._begun = self._clock()
        self._in_hand += 1

    def end(self) -> None:
        """A piece is out of hand, done or not; with the last one the stage is shown no more."""
        self._in_hand -= 1
        if not self._in_hand:
            self._seconds += self._clock() - self._begun
            if self._done + self._failed >= self._found.total:
                self.close()

    def already(self, state: State) -> None:
        """One output that was there is found to be of the stage too."""
        self._done += 1
        self._advance(1)
        state.recount([self.count])

    def add(self, *, done: int = 0, failed: int = 0) -> None:
        """Counts what a piece was for; what failed may be done later, and is then taken off."""
        self._done += done
        self._failed += failed
        self._fresh += done > 0
        if done:
            self._advance(done)

    def note(self, text: str) -> None:
        """Says what happens at the moment."""
        if self._shown is not None:
            self._shown.note(text)

    def close(self) -> None:
        """Shows the stage no more."""
        self._display.close()
        self._shown = None

    def _advance(self, places: int) -> None:
        if self._shown is not None:
            self._shown.advance(places)


class Piece:
    """A task in hand, with its places in the stages that wait for it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._places: Counter[Tally] = Counter()
        self._begun = self._failed = False

    def add(self, tally: Tally, places: int) -> None:
        """So many places of a stage wait for it."""
        if self._begun and tally not in self._places:
            tally.begin()
        self._places[tally] += places
        tally.add(failed=places * self._failed)

    def begin(self) -> None:
        """It is asked for."""
        self._begun = True
        for tally in self._places:
            tally.begin()

    def end(self) -> None:
        """It is asked for no more."""
        self._begun = False
        for tally in self._places:
            tally.end()

    @contextmanager
    def in_hand(self) -> Iterator[None]:
        """It is asked for while the context lasts."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def keep(self, state: State, output: Any) -> None:
        """Stores its output, and all counts with it."""
        for tally, places in self._places.items():
            tally.add(done=places, failed=-places * self._failed)
        self._failed = False
        state.put(self.task, output, [tally.count for tally in self._places])

    def fail(self, state: State, message: str) -> None:
        """Stores why it has no output."""
        for tally, places in self._places.items():
            tally.add(failed=places * (not self._failed))
        self._failed = True
        state.fail(self.task, message, [tally.count for tally in self._places])

    def note(self, text: str) -> None:
        """Says what happens at the moment."""
        for tally in self._places:
            tally.note(text)


def pieces_of(tasks: Iterable[Task], state: State, tally: Tally) -> dict[str, Piece]:
    """Those tasks of a stage that have no output, by key; what failed before is tried again."""
    tally.try_again()
    listed = list(tasks)
    found = {each.key: Piece(each) for each in state.missing(listed)}
    for each in listed:
        if each.key in found:
            found[each.key].add(tally, 1)
    return found
