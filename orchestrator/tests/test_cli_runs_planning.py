"""`tuneproof runs plan` and `preview`, at a trainer that trains nothing."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from tuneproof.cli.runs.planning import text_of
from tuneproof.sdk.planning import Piece, Preview

pytestmark = pytest.mark.timeout(60)


def test_a_plan_tells_what_a_run_would_do(runs):
    code, out, err = runs("plan", "train.jsonl", "--rank", "8", "--preset", "paper")
    assert code == 0, err
    for part in (
        "12 to train on, 3 to validate on",
        "6 of 16 = 0 a forward pass x 4 x 1 device; 900 tokens in all",
        "3.0 GiB of 80.0 GiB a device: kept 3.0 GiB, activations 1.0 MiB",
        "about 1 h 7 min, at 5,120 tokens/s as in 2 earlier runs",
        "the norms",
        "rank 8",
        "dropout 0.1",
        "note: 2 examples repeat (lines 4, 7)",
    ):
        assert part in " ".join(out.split()), part


def test_a_plan_as_json_and_its_files_in_the_store(told):
    Path("held.jsonl").write_text('{"id": "q1"}\n')
    plan = told("plan", "train.jsonl", "--held-out", "held.jsonl", "--validation-share", "0.25")
    assert plan["counts"]["examples"] == 12
    assert (plan["memory_bytes"], plan["refused"]) == ((3 << 30) + (1 << 20), False)
    assert plan["spec"]["hyperparameters"]["validation_share"] == 0.25
    assert plan["spec"]["adapter_name"] == "planned"
    digest = sha256(b'{"id": "q1"}\n').hexdigest()
    assert plan["spec"]["held_out_digest"] == f"sha256:{digest}"
    assert (Path(".tuneproof/artifacts") / plan["spec"]["held_out_path"]).is_file()
    assert told("list")["runs"] == []


def test_a_plan_that_is_refused_says_so(runs):
    code, out, _ = runs("plan", "train.jsonl", "--adapter", "bad")
    assert code == 2
    assert "refused: x: line 2 is not JSON" in out
    code, _, err = runs("preview", "train.jsonl", "--adapter", "bad")
    assert code == 2
    assert "line 2 is not JSON" in err
    code, _, err = runs("plan", "train.jsonl", "--preset", "best")
    assert code == 2
    assert "preset" in err


def test_a_preview_shows_what_the_loss_sees(runs, told):
    code, out, err = runs("preview", "train.jsonl", "--line", "3")
    assert code == 0, err
    assert out.splitlines() == ["line 3", "what? ⟦this</s>⟧"]
    (shown,) = told("preview", "train.jsonl")["previews"]
    assert [piece["learned"] for piece in shown["pieces"]] == [False, True, True]


def test_in_colour_the_prompt_is_dimmed():
    preview = Preview(1, (Piece(5, "[a] ", learned=False), Piece(6, "b", learned=True)))
    text = text_of(preview, in_colour=True)
    assert text.plain == "[a] b"
    assert [str(span.style) for span in text.spans] == ["dim", "bold"]
    assert text_of(preview, in_colour=False).plain == "[a] ⟦b⟧"
