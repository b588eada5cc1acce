"""The gate's decision: one check after the other, and all must pass.

Each check errs at the policy's one-sided tail without adjustment: the gate passes a bad adapter
only if the check that it truly fails errs (an intersection-union test, Berger 1982, Technometrics
24:295). The choice among K adapters is another matter: `decide_all` shares the tail among them. A
study that stopped at an interim look is tested as that look demands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from tuneproof.analysis import costs_by_cell, measures_of
from tuneproof.analysis.comparisons import Comparison, compare_pair
from tuneproof.analysis.families import Adjustment, Excludes, at_this_look, share_tail
from tuneproof.analysis.paired import paired
from tuneproof.analysis.strata import KindName, kinds_of
from tuneproof.analysis.support import by_people, guaranteed_of, tail_at_looks
from tuneproof.gate.policy import Policy
from tuneproof.results import Cell, ItemResult, PrimaryComparison, StudyResults
from tuneproof.results.certificate import read_certificate, why_not_certified
from tuneproof.servicekit.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Check:
    """One demand of the policy."""

    name: str
    """As `accuracy: not worse, by judge m`."""
    passed: bool
    found: str
    """What the study shows."""
    wanted: str
    """What the policy demands."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether one adapter passes."""

    cell: str
    label: str
    adapter: str
    """Reference of the adapter."""
    against: str
    checks: tuple[Check, ...]
    tail: float
    """One-sided error of each check."""
    difference: float | None
    """Mean difference by the first measure, by people where there are labels; to choose by."""

    @property
    def passed(self) -> bool:
        """Every check does."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """Those that do not."""
        return tuple(check for check in self.checks if not check.passed)


def decide(
    results: StudyResults, policy: Policy, cell: str, *, among: int = 1, complete: bool = True
) -> Decision:
    """Checks one cell of a study.

    Args:
        among: K, from how many adapters one is chosen.
        complete: whether the study has done all its work.

    Raises:
        InvalidInput: the study has no such tuned cell, or a measure of the policy is not there.
    """
    mine = _tuned(results, cell)
    margins = dict(policy.margin) or dict(results.margin)
    against, tail = results.baseline_of(mine), policy.tail / among
    items = {one.name: one.items for one in kinds_of(results) if one.model in ("", mine.model)}
    gate = _Gate(replace(results, margin=margins), policy, mine, against, tail, items)
    checks = [] if complete else [Check("complete", False, "work is missing", "a finished study")]
    difference: float | None = None
    for measure in margins:
        found, more = gate.measure(measure)
        checks += more
        difference = found if difference is None else difference
    checks += [*gate.cost(), *gate.latency()]
    adapter = mine.training.adapter_ref if mine.training else ""
    return Decision(cell, mine.label, adapter, against, tuple(checks), tail, difference)


def decide_all(
    results: StudyResults, policy: Policy, cells: Sequence[str], *, complete: bool = True
) -> list[Decision]:
    """Checks several cells, one of which is to be chosen; the tail is shared as the policy says.

    The chance that an adapter passes which should not is at most the tail, whichever is chosen:
    by Bonferroni; by Holm, who gives the share of those that pass to the rest; or in a sequence,
    where each has the whole tail until one does not pass.

    Raises:
        InvalidInput: as `decide`.
    """

    @cache
    def at(cell: str, tail: float) -> Decision:
        alone = policy.model_copy(update={"tail": tail})
        return decide(results, alone, cell, complete=complete)

    def passes(cell: str) -> Excludes:
        return lambda tail: at(cell, tail).passed

    tails = share_tail(Adjustment(policy.choice), policy.tail, [*map(passes, cells)])
    tested = [at(cell, tail) for cell, tail in zip(cells, tails, strict=True) if tail is not None]
    later = [_untested(tested[-1], results, cell) for cell in cells[len(tested) :]]
    return [*tested, *later]


def _untested(before: Decision, results: StudyResults, cell: str) -> Decision:
    """One that the sequence does not come to."""
    mine = _tuned(results, cell)
    told = Check(
        "in its turn", False, f"{before.cell} before it does not pass", "all before it pass"
    )
    adapter = mine.training.adapter_ref if mine.training else ""
    against = results.baseline_of(mine)
    return Decision(cell, mine.label, adapter, against, (told,), before.tail, None)


def choose(decisions: Sequence[Decision]) -> Decision | None:
    """Of those that pass, the one with the largest difference by the first measure."""
    passing = [one for one in decisions if one.passed]
    return max(passing, key=lambda one: one.difference or 0.0, default=None)


def assert_passes(results: StudyResults, policy: Policy, cell: str) -> None:
    """For tests: raises AssertionError with every failed check."""
    decision = decide(results, policy, cell)
    lines = [f"{one.name}: {one.found}, wanted {one.wanted}" for one in decision.failed]
    if lines:
        raise AssertionError("\n".join([f"{cell} does not pass the gate:", *lines]))


@dataclass(frozen=True, slots=True)
class _Gate:
    """The checks of one cell."""

    results: StudyResults
    policy: Policy
    cell: Cell
    against: str
    tail: float
    items: Mapping[KindName, tuple[ItemResult, ...]]
    """By kind; without the kinds that have none."""

    def measure(self, measure: str) -> tuple[float | None, list[Check]]:
        """Not worse over all and in each stratum, rare losses, the judge."""
        everything, checks = self._over(self.results, measure, "")
        for stratum in self.policy.strata:
            part = replace(self.results, items=self.items.get(stratum, ()))
            checks += self._over(part, measure, f", {stratum.replace('_', ' ')}")[1]
        return everything, checks

    def _over(
        self, results: StudyResults, measure: str, where: str
    ) -> tuple[float | None, list[Check]]:
        named = PrimaryComparison(self.cell.name, self.against, measure)
        confidence = at_this_look(self.results, 1.0 - 2.0 * self.tail)
        found = compare_pair(results, named, confidence)
        margin = results.margin[measure]
        checks = [self._not_worse(found, margin, where)]
        pairs = paired(results, named, found.scale)
        people = by_people(
            results, named, pairs, scale=found.scale, margin=margin, confidence=confidence
        )
        if people is not None:
            interval = people.interval
            told = people.words if interval is None else f"from {interval.low:+.3g}"
            passed = interval is not None and interval.low > -margin
            name = f"{measure}{where}: not worse, anchored in {people.labels} labels"
            checks.append(Check(name, passed, told, f"above {-margin:g}"))
        elif not where and measure in measures_of(results).judged:
            checks.append(self._judge(measure))
        bounds = guaranteed_of(
            pairs,
            found.scale,
            tail=tail_at_looks(self.results, self.tail),
            points=self.policy.severe_loss.points if self.policy.severe_loss else None,
        )
        if bounds is not None and self.policy.guaranteed:
            name = f"{measure}{where}: not worse, whatever the distribution"
            passed = bounds.lower > -margin
            checks.append(Check(name, passed, f"{bounds.lower:+.3g}", f"above {-margin:g}"))
        if bounds is not None and self.policy.severe_loss is not None:
            most, severe = self.policy.severe_loss.share, bounds.severe
            name = f"{measure}{where}: losses of {bounds.points:g} or more"
            told = f"{severe.losses} of {severe.items}, at most {severe.upper:.1%}"
            checks.append(Check(name, severe.upper < most, told, f"below {most:.1%}"))
        mean = people.found.estimate.difference if people is not None else found.difference
        return mean, checks

    def _not_worse(self, found: Comparison, margin: float, where: str) -> Check:
        interval = found.interval
        told = found.words if interval is None else f"from {interval.low:+.3g}"
        name = f"{found.measure}{where}: not worse, by {found.by}"
        return Check(name, bool(found.non_inferior), told, f"above {-margin:g}")

    def _judge(self, measure: str) -> Check:
        """Without labels the judge must have shown that it can judge, if that is enough."""
        if self.policy.judge.require == "anchored":
            told = "no labels: `tuneproof study label export` asks people"
            return Check(f"{measure}: anchored in people", False, told, "labels")
        known = [one for one in self.results.judge_checks if one.criterion == measure]
        least = self.policy.judge.kappa
        if not known and self.policy.judge.certificates:
            return self._certified(measure)
        told = f"{known[0].weighted_kappa:.2f}" if known else "not tested, no labels"
        passed = bool(known) and known[0].weighted_kappa >= least
        return Check(f"{measure}: the judge's kappa", passed, told, f"{least:g} or more")

    def _certified(self, measure: str) -> Check:
        """The judge's certificate for the rubric by which the study was judged."""
        digest = next(
            (
                answer.grade.criteria[measure].rubric_digest
                for answer in self.results.answers
                if answer.grade is not None and measure in answer.grade.criteria
            ),
            "",
        )
        problem = why_not_certified(
            [read_certificate(path) for path in self.policy.judge.certificates],
            judge_model=self.results.judge_model,
            rubric_digest=digest,
            kappa=self.policy.judge.kappa,
        )
        wanted = f"{self.policy.judge.kappa:g} or more"
        name = f"{measure}: the judge's certificate"
        return Check(name, not problem, problem or "certified", wanted)

    def cost(self) -> Iterator[Check]:
        """Of an answer, by that of what it is compared with."""
        most = self.policy.cost_ratio
        if most is None:
            return
        costs = costs_by_cell(self.results)
        mine, theirs = costs[self.cell.name], costs[self.against]
        spent = [
            (one.price, "price")
            if mine.price is not None and theirs.price is not None
            else (_sum(one.prompt_tokens, one.completion_tokens), "tokens")
            for one in (mine, theirs)
        ]
        yield _ratio(f"{spent[0][1]} of an answer", spent[0][0], spent[1][0], most)

    def latency(self) -> Iterator[Check]:
        """Of an answer asked for alone."""
        costs = costs_by_cell(self.results)
        mine, theirs = (
            alone.seconds if (alone := costs[name].alone) else None
            for name in (self.cell.name, self.against)
        )
        longest = self.policy.seconds
        if longest is not None:
            told = "not timed" if mine is None else f"{mine:.3g} s"
            passed = mine is not None and mine <= longest
            yield Check("seconds of an answer", passed, told, f"{longest:g} s or less")
        if self.policy.seconds_ratio is not None:
            yield _ratio("seconds of an answer", mine, theirs, self.policy.seconds_ratio)


def _tuned(results: StudyResults, cell: str) -> Cell:
    tuned = {one.name: one for one in results.compared if one.tuned}
    if cell not in tuned:
        raise InvalidInput(
            f"the gate is for tuned cells, and {cell!r} is none; the study has:"
            f" {', '.join(tuned) or 'none'}",
            field="cell",
        )
    return tuned[cell]


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


def _ratio(name: str, mine: float | None, theirs: float | None, most: float) -> Check:
    if mine is None or not theirs:
        return Check(f"{name}, by the baseline's", False, "not known", f"{most:g} or less")
    told = f"{mine / theirs:.3g}"
    return Check(f"{name}, by the baseline's", mine / theirs <= most, told, f"{most:g} or less")
