"""The demo model's tokenizer and chat template."""

from __future__ import annotations

from pathlib import Path

import prompts
import pytest
import vocabulary
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer

from tuneproof.data.telecom import generate
from tuneproof.data.telecom_grammar import words

pytestmark = pytest.mark.timeout(40)

MODEL = Path(__file__).parents[1] / "telecom-reader"
BUILT = vocabulary.build()
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from(["\n", " ", "Alder", " Alder", " 46", ".", " [1]", "<|end|>", "<0x0A>"]),
    )
).map("".join)
ANSWER = "Alder 40 transmit power is 46 dBm when band seven is active."


@pytest.fixture(scope="module")
def tokenizer() -> AutoTokenizer:
    return AutoTokenizer.from_pretrained(MODEL)


@given(TEXTS)
def test_any_text_comes_back(text: str) -> None:
    assert BUILT.decode(BUILT.encode(text).ids, skip_special_tokens=False) == text


def test_the_committed_tokenizer_is_the_one_that_the_script_builds(
    tokenizer: AutoTokenizer, tmp_path: Path
) -> None:
    vocabulary.save(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_text() == (MODEL / name).read_text()
    assert len(tokenizer) == BUILT.get_vocab_size()


def test_every_word_is_one_token_at_the_start_of_a_line_and_within_it() -> None:
    for word in words():
        [alone] = BUILT.encode(word).ids
        assert BUILT.encode(f"the\n{word}").ids[-1] == alone
        assert BUILT.encode(f"the {word}").ids[-1] == alone


def test_prompts_and_forms_need_no_byte_fallback() -> None:
    world = generate(7, 20, reworded=0.5)
    texts = [prompts.ask(item.question, [item.gold_texts[0]] * 6) for item in world.items]
    texts += [prompts.ask(item.question, []) for item in world.items]
    for criterion, template in prompts.templates().items():
        for answer in ("", "46 dBm.", "Not found in the passages.", ANSWER):
            texts.append(prompts.judge(template, "", ANSWER, answer))
            texts.append(prompts.filled_form(criterion, ANSWER, answer))
    for text in texts:
        assert not [piece for piece in BUILT.encode(text).tokens if piece.startswith("<0x")]


def test_the_template_renders_the_three_roles(tokenizer: AutoTokenizer) -> None:
    chat = [
        {"role": "system", "content": "the"},
        {"role": "user", "content": "What"},
        {"role": "assistant", "content": ANSWER},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    assert text == (f"<|system|>\nthe<|end|><|user|>\nWhat<|end|><|assistant|>\n{ANSWER}<|end|>")
    asked = tokenizer.apply_chat_template(chat[:2], tokenize=False, add_generation_prompt=True)
    assert text.removeprefix(asked) == f"{ANSWER}<|end|>"
    assert tokenizer.eos_token == "<|end|>"


def test_the_template_refuses_another_role(tokenizer: AutoTokenizer) -> None:
    with pytest.raises(TemplateError, match="system, user and assistant, not tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


@given(answer=st.text(min_size=1, max_size=30))
def test_a_prompts_tokens_begin_those_of_prompt_and_answer(answer: str) -> None:
    prompt = "<|user|>\nWhat is the Alder 40 transmit power?<|end|><|assistant|>\n"
    asked, whole = BUILT.encode(prompt).ids, BUILT.encode(prompt + answer).ids
    # A newline at the answer's start joins no token either.
    assert whole[: len(asked)] == asked


def test_the_assistants_tokens_and_the_end_are_marked_for_training(
    tokenizer: AutoTokenizer,
) -> None:
    chat = [{"role": "user", "content": "What"}, {"role": "assistant", "content": ANSWER}]
    found = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    marked = [
        token
        for token, mask in zip(found["input_ids"], found["assistant_masks"], strict=True)
        if mask
    ]
    assert tokenizer.decode(marked) == f"{ANSWER}<|end|>"
