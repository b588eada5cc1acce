"""The fingerprint of an adapter, its model card, and the base with the adapter merged in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tuneproof.adapters import Fingerprint
from tuneproof.adapters.fingerprint import FINGERPRINT
from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_trainer.worker.card import card_of

pytestmark = pytest.mark.timeout(240)
_FACTS = {
    "base_model": "tiny",
    "examples": "24",
    "answer_tokens": "96",
    "steps": "2",
    "first_loss": "4.1",
    "final_loss": "3.9",
    "base_precision": "nf4 (double quantised) in 13 of 14 linear layers, float32 elsewhere",
    "compute_precision": "float32",
    "adapter_precision": "float32",
    "data_digest": "sha256:" + "0" * 64,
    "hyperparameters": '{"rank": 4, "target_modules": ["q|proj"]}',
}


@pytest.fixture(scope="module")
def drawn(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fingerprint]:
    """An adapter over the NF4 base, with dropout, as peft saves it; and its fingerprint."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer

    from tuneproof_trainer.worker.base_model import load_base
    from tuneproof_trainer.worker.fingerprint import take_fingerprint

    torch.set_num_threads(1)
    base = load_base(base_folder, Hyperparameters(method="qlora_nf4"), "cpu")
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.3
    )
    model = get_peft_model(base.model, config).train()
    torch.manual_seed(1)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.1)
    folder = tmp_path_factory.mktemp("drawn") / "adapter"
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    return folder, take_fingerprint(base, tokenizer, base_folder, folder)


def _scores(model: Any, found: Fingerprint) -> list[list[float]]:
    import torch

    rows = []
    for probe in found.probes:
        ids = torch.tensor([[*probe.prompt, *probe.tokens]])
        with torch.no_grad():
            logits = model.eval()(input_ids=ids).logits[0].log_softmax(-1)
        first = len(probe.prompt)
        rows.append([float(logits[first + n - 1, each]) for n, each in enumerate(probe.tokens)])
    return rows


def test_a_fingerprint_is_what_transformers_and_peft_compute_of_the_saved_files(
    base_folder: Path, drawn: tuple[Path, Fingerprint]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, found = drawn
    assert [each.precision for each in found.readings] == ["nf4", "float32"]
    plain = AutoModelForCausalLM.from_pretrained(base_folder)
    for row, wanted in zip(found.nearest.base, _scores(plain, found), strict=True):
        assert list(row) == pytest.approx(wanted, abs=1e-4)
    adapted = PeftModel.from_pretrained(plain, folder)
    for row, wanted in zip(found.nearest.adapted, _scores(adapted, found), strict=True):
        assert list(row) == pytest.approx(wanted, abs=1e-4)
    assert found.nearest.effect > 0.05
    assert 0.1 < found.trained.effect / found.nearest.effect < 10
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    turns = [{"role": "user", "content": found.probes[0].question}]
    served = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert list(found.probes[0].prompt) == served
    assert Fingerprint.parse(found.to_text()).probes == found.probes


def test_the_card_tells_precisions_effect_and_that_the_licence_is_open(
    drawn: tuple[Path, Fingerprint],
) -> None:
    _, found = drawn
    text = found.to_text()
    found = Fingerprint.parse(text)  # Its scores are rounded, and so is what the card says.
    card = card_of("short", {**_FACTS, FINGERPRINT: text})
    assert card.startswith("---\nlibrary_name: peft\nbase_model: tiny\n")
    assert f"{found.trained.effect:.4g} nat a token over the base in nf4" in card
    assert f"{found.nearest.effect:.4g} nat a token over the base in float32" in card
    assert "The two effects differ by" in card
    assert "## Licence\n\nNot stated" in card
    assert '| target_modules | `["q\\|proj"]` |' in card
    assert "| data_digest | `sha256:000" in card
    assert '"probes"' not in card
    assert "None was taken." in card_of("short", _FACTS)


def test_a_merged_base_answers_as_the_adapter_did_and_says_how_nearly(
    base_folder: Path, drawn: tuple[Path, Fingerprint], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tuneproof_trainer.merging import merge

    folder, found = drawn
    told = merge(folder, base_folder, tmp_path / "merged", "float32")
    assert told["mean_difference"] < 1e-4 < told["effect"]
    assert told["same_tokens"] == 1
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    for row, wanted in zip(found.nearest.adapted, _scores(merged, found), strict=True):
        assert list(row) == pytest.approx(wanted, abs=1e-3)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    rounded = merge(folder, base_folder, tmp_path / "rounded", "bfloat16")
    assert rounded["mean_difference"] > told["mean_difference"]
    with pytest.raises(InvalidInput, match="exists; name a new folder"):
        merge(folder, base_folder, tmp_path / "merged", "float32")
    with pytest.raises(InvalidInput, match="dtype is int4"):
        merge(folder, base_folder, tmp_path / "new", "int4")


@pytest.mark.process
def test_the_merging_program_tells_mistakes_as_json(base_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tuneproof_trainer.merging"]
    done = subprocess.run(
        [*command, "x", str(base_folder), str(tmp_path), "float32"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "exists" in json.loads(done.stdout)["error"]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 2
