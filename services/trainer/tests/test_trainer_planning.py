"""PlanRun over gRPC: what a run would do, and the data as tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.client import typed_errors
from tuneproof.servicekit.digests import sha256_of_bytes
from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof_trainer.plan.checks import Finding
from tuneproof_trainer.plan.examination import Examined, Request
from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.examine import examine, texts_of

from .test_trainer_contract import spec, trainer

Data = Callable[..., dict[str, str]]
pytestmark = pytest.mark.timeout(240)


def line(prompt: str, answer: str, **more: str) -> dict[str, object]:
    said = (("user", prompt), ("assistant", answer))
    return {"messages": [{"role": role, "content": text} for role, text in said], **more}


@pytest.mark.process
@pytest.mark.slow
async def test_a_plan_tells_what_a_run_then_does(
    base_folder: Path, artifacts: Path, write_data: Data
) -> None:
    asked = spec(write_data(), validation_share=0.25, epochs=2, effective_batch_size=6)
    async with trainer(base_folder, artifacts) as stub:
        request = pb.PlanRunRequest(spec=asked, preview_lines=[2])
        plan = await stub.PlanRun(request)
        await stub.CreateRun(pb.CreateRunRequest(run_id="a", spec=asked))
        async for _ in stub.WatchRun(pb.WatchRunRequest(run_id="a")):
            pass
        run = (await stub.GetRun(pb.GetRunRequest(run_id="a"))).run
        again = await stub.PlanRun(request)
    assert run.state == pb.RUN_STATE_SUCCEEDED, run.reason
    assert plan.spec == run.spec
    facts = run.provenance
    assert (plan.counts.examples, plan.counts.validation_examples) == (18, 6)
    assert facts["examples"] == "18"
    assert facts["validation_examples"] == "6"
    assert str(plan.counts.answer_tokens) == facts["answer_tokens"]
    assert str(plan.counts.prompt_tokens) == facts["prompt_tokens"]
    assert str(plan.counts.longest_example_tokens) == facts["longest_example_tokens"]
    assert plan.counts.padding_tokens > 0
    assert plan.total_steps == run.progress.total_steps == 6
    assert plan.total_tokens == 2 * (plan.counts.answer_tokens + plan.counts.prompt_tokens)
    assert (plan.accumulation, plan.devices) == (1, 1)
    assert {part.name for part in plan.memory} > {"quantised", "adapter", "activations"}
    assert list(plan.unquantised) == ["the embeddings, the norms and the output layer"]
    assert not plan.HasField("duration")
    assert again.measured_runs == 1
    assert again.tokens_per_second > 0
    assert again.duration.ToTimedelta().total_seconds() > 0
    # The validation losses come with the others.
    validated = [point.step for point in run.losses if point.HasField("validation_loss")]
    assert validated == [1, 2, 3, 4, 5, 6]

    (preview,) = plan.previews
    assert preview.line == 2
    learned = [piece.text for piece in preview.pieces if piece.learned]
    assert learned[-1].strip() == "</s>"
    content = (artifacts / "data/train.jsonl").read_text().splitlines()[1]
    said = json.loads(content)["messages"]
    assert "".join(learned[:-1]).split() == said[1]["content"].split()
    whole = "".join(piece.text for piece in preview.pieces)
    prompt, answer = (each["content"].split() for each in said)
    assert whole.split() == ["<|user|>", *prompt, "<|assistant|>", *answer, "</s>"]


def examined(base: Path, artifacts: Path, data: dict[str, str], **more: Any) -> Examined:
    """In this process; `more` are fields of the spec or hyper-parameters."""
    fields = {name: more.pop(name) for name in list(more) if name in RunSpec.model_fields}
    full = RunSpec(
        data_path=data["path"],
        data_digest=data["digest"],
        hyperparameters=Hyperparameters(**more),
        **fields,
    )
    return examine(Request(spec=full, base_folder=str(base), artifacts=str(artifacts)))


def by_code(found: Examined) -> dict[str, Finding]:
    return {each.code: each for each in found.findings}


def test_what_stands_out_in_the_data_is_found(
    base_folder: Path, artifacts: Path, write_data: Data
) -> None:
    lines = [
        line("w1 w2", "w3", id="q1"),
        line("w1 w2", "w3"),
        line("w4", "w5"),
        line("w4", "w6"),
        line("w7 " * 30, "w8"),
    ]
    data = write_data(lines)
    held = b'{"id": "q1"}'
    (artifacts / "held.jsonl").write_bytes(held)
    out = {"held_out_path": "held.jsonl", "held_out_digest": sha256_of_bytes(held)}
    found = by_code(examined(base_folder, artifacts, data, max_length=20, **out))
    long = found["too_long"]
    assert (long.refused, long.lines) == (True, (5,))
    assert "1 of 5 examples of data have more than 20 tokens, up to 34" in long.message
    assert (found["leak"].refused, found["leak"].lines) == (True, (1,))
    assert found["duplicate"].lines == (2,)
    assert found["conflicting_answers"].lines == (3, 4)

    both = {"allow_leakage": True, "too_long": "drop", "max_length": 20}
    allowed = examined(base_folder, artifacts, data, **both, **out)
    assert not any(each.refused for each in allowed.findings)
    assert "allow_leakage lets them through" in by_code(allowed)["leak"].message
    assert "they are left out" in by_code(allowed)["too_long"].message
    assert (len(allowed.lengths), allowed.dropped_examples) == (4, 1)


def test_a_template_that_ends_answers_otherwise_is_told(
    base_folder: Path, artifacts: Path, write_data: Data, tmp_path: Path
) -> None:
    other = shutil.copytree(base_folder, tmp_path / "other")
    template = other / "chat_template.jinja"
    text = template.read_text()
    template.write_text(text.replace(" </s>", " <unk>"))
    (finding,) = examined(other, artifacts, write_data()).findings
    assert finding.code == "end_of_answer"
    assert "every answer holds '<unk>' before the end of sequence '</s>'" in finding.message
    assert not finding.refused
    # The past is written otherwise than serving's prompt.
    template.write_text(text.replace("<|assistant|> {% endif %}", "w40 {% endif %}"))
    (finding,) = examined(other, artifacts, write_data()).findings
    assert (finding.code, len(finding.lines)) == ("template", 24)


def test_pieces_of_characters_come_whole() -> None:
    """A byte-level tokenizer writes é as two tokens: the second has the character."""

    class Bytes:
        def decode(self, ids: list[int], **_: object) -> str:
            return bytes(ids).decode(errors="replace")

    ids = list("aé€b".encode())
    assert texts_of(Bytes(), ids) == ["a", "", "é", "", "", "€", "b"]


@pytest.mark.process
async def test_a_plan_of_wrong_data_and_of_a_wrong_spec(
    base_folder: Path, artifacts: Path, write_data: Data
) -> None:
    async with trainer(base_folder, artifacts) as stub:

        async def plan(asked: pb.RunSpec, *lines: int) -> pb.PlanRunResponse:
            with typed_errors():
                return await stub.PlanRun(pb.PlanRunRequest(spec=asked, preview_lines=lines))

        unread = await plan(spec(write_data(raw=b'{"messages": []}\n{')))
        good = write_data()
        foreign = await plan(spec({**good, "digest": "sha256:" + "0" * 64}))
        with pytest.raises(InvalidInput, match="early_stopping_patience is 3"):
            await plan(spec(good, early_stopping_patience=3))
        with pytest.raises(InvalidInput, match="no example at line 99"):
            await plan(spec(good), 99)
        with pytest.raises(InvalidInput, match="21 lines to preview"):
            await plan(spec(good), *range(1, 22))
        gone = base_folder.rename(base_folder.with_name("gone"))
        try:
            with pytest.raises(Unavailable, match="the base's folder is gone"):
                await plan(spec(good))
        finally:
            gone.rename(base_folder)
    (finding,) = unread.findings
    assert (finding.code, finding.refused) == ("data", True)
    assert "line 1 does not end with the assistant's message; line 2 is not JSON" in finding.message
    assert not unread.HasField("counts")
    # Who may plan only may read what he knows the digest of.
    assert "data has another digest than the spec says" in foreign.findings[0].message
    assert good["digest"].removeprefix("sha256:") not in foreign.findings[0].message
    assert not foreign.previews
    assert unread.spec.hyperparameters.effective_batch_size == 8
    assert unread.memory
