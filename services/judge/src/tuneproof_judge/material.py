"""Texts that a prompt shows as material: nothing in them can pass for the prompt itself.

Three ways to get out are closed, for the question, the reference, the passages and the answer:

- **Hidden text.** Characters that a reader does not see but a model reads (zero width, direction
  marks, tag characters, variation selectors that carry bytes, control characters) are dropped.
- **Special tokens** of chat templates, as `<|im_end|>` or `[/INST]`, get a space inside, with which
  a tokenizer reads plain characters.
- **Delimiters.** Each line begins with a mark that no line of the prompt itself has; the answer
  stands between fences besides, see `prompt`.
"""

from __future__ import annotations

import re

MARK = "> "
"""Begins each line of quoted material."""

_LINE_ENDS = re.compile("\r\n?|[\n\v\f\x1c-\x1e\x85\u2028\u2029]")
# Unicode's Default_Ignorable_Code_Point, control and direction characters, and lone halves of
# surrogate pairs, which no JSON can carry. Joiners and U+FE0E, U+FE0F are in scripts and emoji.
_HIDDEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0"
    "\ufff0-\ufffb\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_JOINER = re.compile("(?<![^\x00-\x7f])[\u200c\u200d\ufe0e\ufe0f]|[\u200c\u200d\ufe0e\ufe0f]{2,}")
_NAMES = (
    r"s|bos|eos|pad|unk|mask|sep|cls|eot|eod|think|tool_call|tool_response|system|user|assistant"
    r"|human|model|start_of_turn|end_of_turn|begin_of_text|end_of_text|endoftext|unused\d+"
)
_SPECIAL = re.compile(
    # A pair of characters opens or closes the tokens of most templates, in ASCII or full width.
    r"<(?=[|\uff5c])|[|\uff5c](?=>)"
    rf"|<(?=/?(?:{_NAMES})>)|<(?=</?SYS>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK|IMG\w*)\])",
    re.IGNORECASE,
)


def cleaned(text: str) -> str:
    """A text without hidden characters and special tokens, its lines ended by `\\n`."""
    text = _HIDDEN.sub("", _LINE_ENDS.sub("\n", text))
    return _SPECIAL.sub(lambda match: f"{match[0]} ", _JOINER.sub("", text))


def quoted(text: str) -> str:
    """A cleaned text with the mark before each line."""
    return MARK + text.replace("\n", f"\n{MARK}")
