"""A study that is read at interim looks, and stops at the first that decides."""

from __future__ import annotations

from collections.abc import Iterator

from tuneproof.servicekit.errors import WrongState
from tuneproof.study.collect import load_results
from tuneproof.study.design.identity import Identities
from tuneproof.study.design.looks import plan_at
from tuneproof.study.design.prepare import Prepared, Request, remember
from tuneproof.study.state.store import State
from tuneproof.study.status import is_complete, last_status, status_of
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.tally import GRADES


def planned_looks(state: State, prepared: Prepared, asked: int) -> int:
    """How many looks a study has; 0: it is read once.

    Args:
        asked: on the command line; 0: what its earlier runs said.

    Raises:
        WrongState: an earlier run judged answers with another number of looks.
    """
    spec = prepared.spec
    kept = int(((state.study(spec.study) or {}).get("looks") or {}).get("planned", 0))
    if asked in (0, kept):
        return kept
    if kept or any(one.stage == GRADES and one.done for one in last_status(state, spec)):
        said = f"with {kept} looks" if kept else "without looks"
        raise WrongState(
            f"{spec.study} has judged answers already, {said}: looks are planned before the first"
            " score, or their error cannot be counted; leave --looks out, or run it under another"
            " name or --state"
        )
    return asked


def looked_at(
    state: State, prepared: Prepared, request: Request, identities: Identities, planned: int
) -> Iterator[Chain]:
    """The chain of each look, to be run before the next is asked for.

    It ends when every primary comparison is decided, at the last look, and where a look could not
    be finished. An interrupted study goes on with the look at which it was.

    Args:
        planned: looks; 0: one chain with all questions.
    """
    before = (state.study(prepared.spec.study) or {}).get("looks") or {}
    taken = int(before.get("taken", 1))
    while True:
        looks = {"planned": planned, "taken": taken} if planned else None
        remember(state, prepared, request, identities, looks)
        chain = Chain(plan_at(prepared.plan, looks), identities, state)
        yield chain
        last = chain.plan.looks is None or taken >= len(chain.plan.looks.fractions)
        if last or not is_complete(status_of(chain)) or _decided(chain):
            return
        taken += 1


def _decided(chain: Chain) -> bool:
    from tuneproof.analysis import compare  # noqa: PLC0415 - scipy takes long to load

    return compare(load_results(chain)).decided
