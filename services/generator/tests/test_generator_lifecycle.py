"""The state machine by itself, under random walks."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.servicekit.errors import Internal
from tuneproof_generator.adapters.lifecycle import AdapterRecord, AdapterState

_START = datetime(2026, 1, 1, tzinfo=UTC)


def _record() -> AdapterRecord:
    return AdapterRecord.declared("a@sha256:" + "0" * 64, required=True, now=_START)


def _walk(*states: AdapterState) -> AdapterRecord:
    record = _record()
    for number, state in enumerate(states, 1):
        record = record.to(state, _START + timedelta(seconds=number), reason="because")
    return record


@given(st.lists(st.sampled_from(AdapterState), max_size=12))
def test_ready_only_after_every_check_and_never_again_once_draining(
    wishes: list[AdapterState],
) -> None:
    record = _record()
    for number, wish in enumerate(wishes, 1):
        before = record
        try:
            record = record.to(wish, _START + timedelta(seconds=number), reason="because")
        except Internal:
            assert record is before
            continue
        assert before.state is not AdapterState.DRAINING
        states = [transition.state for transition in record.transitions]
        if wish is AdapterState.READY:
            assert states[-5:] == [
                AdapterState.PENDING,
                AdapterState.FETCHING,
                AdapterState.VERIFYING,
                AdapterState.LOADING,
                AdapterState.READY,
            ]
        assert states[0] is AdapterState.PENDING
        assert [t.time for t in record.transitions] == sorted(t.time for t in record.transitions)
        assert record.required


def test_a_failure_needs_a_reason() -> None:
    with pytest.raises(Internal, match="without a reason"):
        _record().to(AdapterState.FAILED, _START)


def test_declared_again_it_begins_anew() -> None:
    failed = _walk(AdapterState.FETCHING, AdapterState.FAILED).took("fetch", 1.0)
    assert failed.reason == "because"
    again = failed.declared_again(_START)
    assert [transition.state for transition in again.transitions] == [AdapterState.PENDING]
    assert again.stage_seconds == {}
    assert failed.stage_seconds == {"fetch": 1.0}
