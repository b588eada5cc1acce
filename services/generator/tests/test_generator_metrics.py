"""What the generator counts, and that it stops counting an adapter that is gone."""

from __future__ import annotations

import prometheus_client
import pytest

from tuneproof_generator.accounting import account
from tuneproof_generator.adapters.lifecycle import AdapterState

from .perilous import ref

pytestmark = pytest.mark.timeout(20)

A, B, C = (ref(name) for name in "abc")


def _value(name: str, **labels: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0.0


def _series(wanted: str) -> set[str]:
    return {
        sample.name
        for family in prometheus_client.REGISTRY.collect()
        for sample in family.samples
        if sample.labels.get("adapter") == wanted
    }


def test_series_of_an_adapter_go_with_it_and_those_of_others_stay(loop, replica):
    async def scene():
        for wanted in (A, B):
            await replica.declare(wanted)
            await replica.ask(str(wanted))
        both = _series(str(A))
        assert {
            "tuneproof_generator_requests_total",
            "tuneproof_generator_tokens_total",
            "tuneproof_generator_first_token_seconds_bucket",
            "tuneproof_generator_answer_seconds_bucket",
        } <= both
        await replica.pool.remove(A, 1.0)
        assert _series(str(A)) == set()
        assert _series(str(B)) == both

    loop.run_until_complete(scene())


def test_the_capacity_used_follows_declarations(loop, replica):
    async def scene():
        assert _value("tuneproof_generator_capacity", kind="host") == 2
        await replica.declare(A)
        await replica.declare(B)
        assert _value("tuneproof_generator_capacity_used", kind="host") == 2
        await replica.pool.remove(A, 1.0)
        assert _value("tuneproof_generator_capacity_used", kind="host") == 1

    loop.run_until_complete(scene())


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("unfit", "InvalidInput"), ("damaged", "Corrupted"), ("is_down", "Unavailable")],
)
def test_failures_are_counted_by_kind(loop, replica, fault, kind):
    async def scene():
        before = _value("tuneproof_generator_load_failures_total", kind=kind)
        setattr(replica.faults, fault, True if fault == "is_down" else {A})
        assert await replica.declare(A) is AdapterState.FAILED
        assert _value("tuneproof_generator_load_failures_total", kind=kind) == before + 1

    loop.run_until_complete(scene())


def test_the_first_token_is_what_came_before_decoding():
    name = "told@sha256:1"
    with account(name, "grpc") as used:
        used.took({"decode": 0.0})
    with account(name, "grpc") as used:
        used.took({"decode": 3600.0})
    first, whole = (
        _value(f"tuneproof_generator_{what}_seconds_sum", adapter=name)
        for what in ("first_token", "answer")
    )
    assert 0 < first < whole, "the second one's decoding took all its time"


def test_a_cancelled_request_has_no_latency():
    name = "left@sha256:1"
    with account(name, "grpc"):
        pass
    assert (
        _value("tuneproof_generator_requests_total", adapter=name, door="grpc", finish="cancelled")
        == 1
    )
    assert not {sample for sample in _series(name) if "seconds" in sample}
