"""What the split kept together is one draw in the analysis."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from fakes import served
from small_study import SmallStudy

from tuneproof.study.design.prepare import Request, prepare

pytestmark = pytest.mark.timeout(120)


async def test_clusters_joined_by_a_question_are_one_in_the_results(tmp_path, monkeypatch) -> None:
    small = SmallStudy(tmp_path)
    request = Request(small.file, small.state)
    plan = prepare(request).plan
    data_set = type(plan.spec.dataset)
    raw = {item.id: item.cluster for item in plan.dataset.items}
    assert plan.clusters == raw  # nothing joins them here

    def asking_the_same(one, other):
        items = tuple(
            replace(item, question=one.question) if item.id == other.id else item
            for item in plan.dataset.items
        )
        return replace(plan.dataset, items=items)

    for one, other in combinations(plan.test, 2):
        joined = asking_the_same(one, other)
        monkeypatch.setattr(data_set, "load", lambda _, joined=joined: joined)
        tested = {item.id for item in prepare(request).plan.test}
        if raw[one.id] != raw[other.id] and {one.id, other.id} <= tested:
            break
    else:
        pytest.fail("no pair of test questions stays in the test")
    async with served(small.world()) as target:
        results = await small.run(target)
    found = {item.id: item.cluster for item in results.items}
    assert found[one.id] == found[other.id] == min(raw[one.id], raw[other.id])
