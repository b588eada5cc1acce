"""Random bases of known shapes, with a tokenizer and data, for measurements on a GPU.

No weights can be downloaded everywhere, and neither the speed of a training nor its memory depends
on their values. What an answer says does, so nothing here measures quality.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|> {{ message.content }}"
    "{% if message.role == 'assistant' %} </s>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
_SPECIAL = ("<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>")
_WORDS = 1000
_LENGTHS = {"vocab_size": 128256, "max_position_embeddings": 8192}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": len(_SPECIAL) + _WORDS,
        "max_position_embeddings": 1024,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "1b": {
        **_LENGTHS,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "8b": {
        **_LENGTHS,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}
"""The dimensions of Llama 3.2 1B and Llama 3 8B, and one for a trial without a GPU."""


@dataclass(frozen=True)
class Run:
    """What every measurement gets."""

    scratch: Path
    tiny: bool
    ends: float
    """When the time is over, by time.monotonic."""

    def base(self, shape: str) -> Path:
        """The base of a shape, made when it is first wanted; a tiny one in a trial."""
        folder = self.scratch / f"llama-{shape}"
        if not folder.is_dir():
            with told(f"making {folder.name}"):
                write_base(folder, "tiny" if self.tiny else shape)
        return folder


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Says on standard error how long something took."""
    begun = time.monotonic()
    yield
    print(f"== {what}: {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Data:
    """Conversations that all have as many tokens, so that nothing is padded."""

    messages: tuple[tuple[dict[str, str], ...], ...]
    tokens: int
    """Of a conversation."""
    answer_tokens: int
    """Of these, what the loss sees: the answer with its end."""

    def write(self, path: Path) -> str:
        """Writes them as the trainer reads them; the file's digest."""
        lines = "".join(json.dumps({"messages": each}) + "\n" for each in self.messages).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lines)
        return f"sha256:{sha256(lines).hexdigest()}"


def make_data(count: int, tokens: int, answer_tokens: int) -> Data:
    """Conversations of random words."""
    draw = random.Random(3)
    around = 2  # <|user|> and <|assistant|>; the answer's end is one of its tokens.

    def words(number: int) -> str:
        return " ".join(f"w{draw.randrange(_WORDS)}" for _ in range(number))

    messages = tuple(
        (
            {"role": "user", "content": words(tokens - answer_tokens - around)},
            {"role": "assistant", "content": words(answer_tokens - 1)},
        )
        for _ in range(count)
    )
    return Data(messages, tokens, answer_tokens)


def write_base(folder: Path, shape: str) -> Path:
    """A Llama with random weights in bfloat16 (in float32 without a GPU), and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    on_gpu = torch.cuda.is_available()
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape],
        bos_token_id=0,
        eos_token_id=1,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )
    with torch.device("cuda" if on_gpu else "cpu"):
        model = LlamaForCausalLM._from_config(  # noqa: SLF001 - made in its type, not cast to it
            config, dtype=torch.bfloat16 if on_gpu else torch.float32
        )
    model.save_pretrained(folder)
    _write_tokenizer(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    known = [*_SPECIAL, *(f"w{number}" for number in range(_WORDS))]
    made = Tokenizer(WordLevel({word: place for place, word in enumerate(known)}, "<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    made.add_special_tokens([AddedToken(word, normalized=False) for word in _SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)


def write_embedder(folder: Path) -> Path:
    """A BERT of all-MiniLM-L6-v2's shape with random weights, and a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    known = [*special, *(f"w{number}" for number in range(_WORDS))]
    made = Tokenizer(WordPiece({word: place for place, word in enumerate(known)}))
    made.pre_tokenizer = BertPreTokenizer()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=256, **names).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    BertModel(config).save_pretrained(folder)
    return folder
