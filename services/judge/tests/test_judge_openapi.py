"""The HTTP door and its OpenAPI document, tried on each other by schemathesis."""

import asyncio

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

EXAMPLES = 10
CALLS = 7


async def test_every_call_is_as_its_document_says(fake, http_judge, reply) -> None:
    fake.script = lambda _: reply.says("Score: 3")
    async with http_judge() as url:
        tried = await asyncio.to_thread(explore, url)
    assert len(tried) == CALLS


def explore(url: str) -> set[str]:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    tried = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        attempt(operation, GenerationMode.POSITIVE)
        if operation.body or operation.query:  # Of a path's text nothing is forbidden.
            attempt(operation, GenerationMode.NEGATIVE)
        tried.add(operation.label)
    return tried


def attempt(operation, mode: GenerationMode) -> None:
    # No schema tells which rubrics there are, or what each of them reads.
    excluded = [positive_data_acceptance]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    # A time as short as those that it makes up is over at once.
    @given(operation.as_strategy(generation_mode=mode, headers={"Request-Timeout": "20"}))
    def check(case) -> None:
        case.call_and_validate(excluded_checks=excluded, timeout=20)

    check()
