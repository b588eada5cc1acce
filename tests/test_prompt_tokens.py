"""A prompt has the same token ids in serving, among tuning's examples, and in an import."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tuneproof.data.chat_tokens import ChatTokenizer
from tuneproof.prompts import Pair, chat, conversation
from tuneproof_trainer.data import parse_examples
from tuneproof_trainer.worker.tokens import tokenise

pytestmark = pytest.mark.timeout(60)
MODEL = Path(__file__).parents[1] / "demo/telecom-reader"


def test_a_prompt_begins_with_the_ids_of_its_examples() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    pairs = [
        Pair("what is the Elm 3 antenna tilt ?", "6 degrees .", ("Elm 3 tilts .", "Noise .")),
        Pair("Wörter, die er nie sah: 漢字 🙂?", "Nein.", ("Ein  Absatz\n\n[2] nicht.",)),
        Pair("who ?", "she .", None),
    ]
    lines = [json.dumps({"messages": conversation(pair)}) for pair in pairs]
    examples = parse_examples("\n".join(lines).encode(), "data.jsonl")
    learnt = tokenise(tokenizer, examples, max_length=2048, path="data.jsonl")
    for number, (pair, sequence) in enumerate(zip(pairs, learnt, strict=True)):
        asked = tokenizer.apply_chat_template(
            chat(pair.question, pair.passages, examples=pairs[:number]),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        assert ChatTokenizer(str(MODEL)).ids(
            chat(pair.question, pair.passages, examples=pairs[:number])
        ) == tuple(asked)
        before = [token for each in learnt[:number] for token in each.input_ids]
        assert asked == [*before, *sequence.input_ids[: sequence.prompt_length]]
