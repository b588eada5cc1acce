"""The demo model's tokenizer: the manual's words whole, with their space, all else by bytes.

Three properties that the rest relies on:

* decode(encode(x)) == x for any text: the pieces carry real spaces, so no stand-in character can be
  mistaken for one, and what is no piece falls back to bytes.
* A word is the same token at the start of a line as within it: on reading, a space is put before
  every line that is not empty, and on writing it is taken out again. Nothing is put after a newline
  that ends the text, so the tokens of a prompt are a prefix of the tokens of prompt and answer.
* A number is one token, so a value is copied whole or not at all.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tuneproof.data.telecom_grammar import words

END, USER, ASSISTANT, SYSTEM, PAD = "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>"
SPECIAL = (PAD, END, USER, ASSISTANT, SYSTEM)
"""The first pieces of the vocabulary: a token's id is its place here."""
PROMPT_WORDS = (
    "Answer", "the", "question", "from", "passages", "Question", "Judge", "accuracy",
    "completeness", "of", "answer", "Reference", "Subject", "Value", "Condition", "same",
    "different", "missing", "none", "Score",
)  # fmt: skip
MARKS = ("\n", " ", ".", ",", ":", "?")
PASSAGE_MARKS = tuple(f" [{n}]" for n in range(1, 10))
CONTEXT_TOKENS = 4096

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|>\n{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% elif message['role'] in ['user', 'system'] %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>' }}"
    "{% else %}"
    "{{ raise_exception('the roles are system, user and assistant, not ' + message['role']) }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def build() -> Tokenizer:
    """The tokenizer: about 1,100 pieces."""
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *MARKS, *PASSAGE_MARKS]
    pieces += [f" {word}" for word in sorted({*words(), *PROMPT_WORDS})]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=[],
            byte_fallback=True,
            ignore_merges=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(Regex(r"(?:\A|(?<=\n))(?=[^\n])"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r" ?\[[0-9]\]| ?[A-Za-z]+| ?[0-9]+|[\s\S]"), behavior="isolated"
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", left=1, right=0),
            *(decoders.Replace(f"{mark} ", mark) for mark in ("\n", *SPECIAL)),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return tokenizer


def save(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    build().save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT_TOKENS,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n")
