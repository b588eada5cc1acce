"""The probabilities of the scores, where a completion holds its score.

The endpoint tells the most probable alternatives of each token. At the token that begins the
score, alternatives that spell a score count for it. On a scale such as 0 to 10 a token `1` may go
on to `10`: its probability is split by the alternatives of the token after it. Where the judge
went another way, these are not known, and the endpoint is asked to go on from there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from tuneproof_judge.form import Found
from tuneproof_judge.grade import Failure, FailureKind, Weights
from tuneproof_judge.replies import Completion

GoOn = Callable[[str], Awaitable[Completion]]
"""One more token of a completion that begins so, with its alternatives."""

_NEGLIGIBLE = 1e-5
"""A probability that is not worth a request of its own."""
_LEAST_INSIDE = 0.5
"""Below it the judge was about to write something else than a score."""
_LONGEST = 3
"""Digits of the highest score that a rubric can have."""


async def weigh(
    completion: Completion, found: Found, scale: Collection[int], go_on: GoOn
) -> Weights | Failure:
    """The weights of a completion's score.

    Args:
        completion: with tokens.
        found: where its score is.

    Raises:
        CallFailed, WrongState: as the endpoint, when asked to go on.
    """
    place = _token_of(completion, found.start)
    if place is None:
        return Failure(FailureKind.ENDPOINT, "the endpoint's tokens do not spell its completion")
    index, lead = place
    tree = _Tree(completion, found.start, {str(score): score for score in scale}, go_on)
    shares: dict[int, float] = {}
    problem = await tree.spread(lead, "", index, 1.0, shares, on_path=True)
    if problem is not None:
        return problem
    if (inside := sum(shares.values())) < _LEAST_INSIDE:
        return Failure(
            FailureKind.OUT_OF_RANGE,
            f"the scores of the scale have {inside:.3f} of the probability, less than half",
        )
    return Weights(shares)


@dataclass(frozen=True)
class _Tree:
    """The ways on from the place of the score."""

    completion: Completion
    start: int
    scores: Mapping[str, int]
    go_on: GoOn

    async def spread(
        self,
        lead: str,
        digits: str,
        index: int,
        probability: float,
        shares: dict[int, float],
        *,
        on_path: bool,
    ) -> Failure | None:
        """Gives the probability of a prefix to the scores that it may become.

        Args:
            lead: what the token holds before the score, as a colon.
            digits: of the score, so far.
            index: of the token that comes next.
            on_path: whether the judge's own completion begins so.
        """
        own: bytes | None = None
        if on_path and index < len(self.completion.tokens):
            token = self.completion.tokens[index]
            own, alternatives = token.content, token.alternatives
        else:
            answer = await self.go_on(self.completion.text[: self.start] + digits)
            wanted = self.completion.prompt_tokens + index
            if not answer.tokens or answer.prompt_tokens != wanted:
                return Failure(
                    FailureKind.ENDPOINT,
                    "the endpoint did not go on from a begun completion, which scores of several"
                    " tokens need: use the mode sampled, or a scale of scores with one token",
                )
            alternatives = answer.tokens[0].alternatives
        for content, share in alternatives.items():
            part = _digits_after(content, lead, first=not digits)
            if part is None:
                continue
            spelled, may_grow = digits + part, bool(part) and len(digits + part) < _LONGEST
            grows = may_grow and any(
                name.startswith(spelled) and name != spelled for name in self.scores
            )
            here = probability * share
            if grows and not content.endswith((b" ", b"\n")) and here > _NEGLIGIBLE:
                problem = await self.spread(
                    "", spelled, index + 1, here, shares, on_path=content == own
                )
                if problem is not None:
                    return problem
            elif spelled in self.scores:
                score = self.scores[spelled]
                shares[score] = shares.get(score, 0.0) + here
        return None


def _digits_after(content: bytes, lead: str, *, first: bool) -> str | None:
    """The digits that a token adds to a score; empty where it ends it, None where it spoils it."""
    text = content.decode("utf-8", "replace")
    if first:
        bare = text.strip()
        if not bare.startswith(lead):
            return None
        part = bare[len(lead) :].strip()
        return part if part.isascii() and part.isdigit() else None
    if text[:1].isascii() and text[:1].isdigit():
        part = text.rstrip()
        return part if part.isdigit() else None
    return None if text[:1] in ("/", ",") else ""


def _token_of(completion: Completion, start: int) -> tuple[int, str] | None:
    """Which token holds the character at `start`, and what the token holds before it.

    White space is left out of the comparison: tokens of words do not show it.
    """
    before = _bare(completion.text[:start].encode())
    at = 0
    for index, token in enumerate(completion.tokens):
        bare = _bare(token.content)
        if at + len(bare) > len(before):
            if b"".join(_bare(each.content) for each in completion.tokens[:index]) != before[:at]:
                return None
            lead = bare[: len(before) - at]
            if lead != before[at:] or not bare[len(lead) :][:1].isdigit():
                return None
            return index, lead.decode("utf-8", "replace")
        at += len(bare)
    return None


def _bare(content: bytes) -> bytes:
    return b"".join(content.split())
