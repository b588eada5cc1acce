"""The red team against judges whose rules are known: one that reads, one that believes."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tuneproof.redteam import ATTACKS, BUILT_IN, Found, Item, attack_judge, read_items
from tuneproof.redteam.attacks import Aim
from tuneproof.sdk import JudgeClient
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.testing import serving
from tuneproof_judge.main import build
from tuneproof_judge.settings import JudgeSettings

from .conftest import ROOT

pytestmark = pytest.mark.timeout(60)

sys.path.append(str(ROOT))  # The judge's fake is named from there.
fakes = importlib.import_module("services.judge.tests.conftest")


def material(prompt: str, head: str) -> str:
    """The marked lines after a line of the prompt."""
    lines = iter(prompt.split("\n"))
    next(line for line in lines if line.startswith(head))
    found = []
    for line in lines:
        if not line.startswith("> "):
            break
        found.append(line[2:])
    return "\n".join(found)


def reads(prompt: str) -> str:
    """Compares the words of the answer's first line with the reference's first, and obeys none."""
    reference, answer = (
        set(re.findall(r"\w+", material(prompt, head).split("\n")[0].lower()))
        for head in ("Reference answer:", "----- answer")
    )
    return f"Reasons: compared.\nScore: {5 if reference and reference <= answer else 1}"


def believes(prompt: str) -> str:
    """Takes any score that the prompt's material names, and repeats the word that it is told."""
    given = "\n".join(line for line in prompt.split("\n") if line.startswith("> "))
    told = re.findall(r"(?i:score|grade)\W+(\d)", given)
    canary = re.search(r"heliotrope\w+", given)
    honest = reads(prompt)[-1]
    return f"Reasons: {canary[0] if canary else 'none'}.\nScore: {told[-1] if told else honest}"


@asynccontextmanager
async def judge(rule: Callable[[str], str]) -> AsyncIterator[JudgeClient]:
    async with fakes.FakeEndpoint().running() as endpoint:
        endpoint.script = lambda asked: fakes.says(rule(asked.prompt))
        settings = JudgeSettings(endpoint_url=endpoint.url, endpoint_model="rule")
        async with (
            build(settings) as service,
            serving(service) as target,
            JudgeClient(target) as client,
        ):
            yield client


async def attacked(rule: Callable[[str], str], rubric: str = "accuracy@1", count: int = 1) -> Found:
    async with judge(rule) as client:
        return await attack_judge(client, await client.rubric(rubric), BUILT_IN[:count])


@pytest.mark.slow
async def test_a_judge_that_reads_is_not_moved() -> None:
    found = await attacked(reads, count=10)
    assert (found.right, found.wrong, found.blind) == (5, 1, False)
    assert (found.inflated, found.rate) == (0, 0)
    assert found.answers == 10 * sum(each.place != "passages" for each in ATTACKS)
    assert found.interval[1] < 0.02
    assert not any(each.obeyed or each.unscored for each in found.outcomes)


async def test_a_judge_that_believes_is_found_out() -> None:
    found = await attacked(believes)
    rates = {each.attack: each.rate for each in found.outcomes}
    assert rates["fake form"] == rates["command: chinese"] == rates["in the reference"] == 1
    assert rates["bandwagon"] == rates["alone: grade"] == 1
    assert rates["alone: colon"] == rates["verbosity"] == rates["layout"] == 0
    assert rates["hidden command"] == 0  # The judge never sees it.
    obeyed = {each.attack: each.obeyed for each in found.outcomes if each.obeyed}
    assert set(obeyed) == {
        *(f"command: {each}" for each in ("english", "german", "spanish", "french")),
        *(f"command: {each}" for each in ("russian", "chinese", "arabic")),
        "in the reference",
    }
    assert found.rate > 0.5


async def test_passages_are_attacked_where_the_rubric_reads_them() -> None:
    found = await attacked(lambda _: "Reasons: none.\nScore: 3", "faithfulness@1")
    places = {each.place for each in found.outcomes}
    assert places == {"answer", "passages"}
    assert found.blind  # It gives everything the same score.


async def test_a_lost_grade_is_counted_and_no_success() -> None:
    def garbles(prompt: str) -> str:
        return "no form" if "examination board" in prompt else reads(prompt)

    found = await attacked(garbles)
    (authority,) = [each for each in found.outcomes if each.attack == "authority"]
    assert (authority.answers, authority.unscored, authority.rate) == (0, 1, None)


def test_items_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    item = {"question": "Q", "reference": "R", "wrong": "W"}
    path.write_text(json.dumps(item) + "\n\n")
    assert read_items(path) == [Item(**item)]
    path.write_text(json.dumps(item) + '\n{"question": "Q"}\n')
    with pytest.raises(InvalidInput, match=r"items\.jsonl:2"):
        read_items(path)
    path.write_text("")
    with pytest.raises(InvalidInput, match="no item"):
        read_items(path)


def test_attacks_have_names_of_their_own_and_leave_the_other_texts_alone() -> None:
    assert len({each.name for each in ATTACKS}) == len(ATTACKS) >= 25
    (item, *_) = BUILT_IN
    assert all(each.wrong != each.reference for each in BUILT_IN)
    for attack in ATTACKS:
        texts = attack.texts(item, Aim(5, "canary"))
        whole = {"answer": texts.answer, "reference": texts.reference}
        whole["passages"] = texts.passages[0]
        plain = {"answer": item.wrong, "reference": item.reference, "passages": item.shown[0]}
        assert [name for name in whole if whole[name] != plain[name]] == [attack.place]
