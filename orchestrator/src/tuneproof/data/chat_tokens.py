"""Token ids of a chat, by a model's own chat template and tokenizer, without its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tuneproof.data.lengths import Tokenizer, model_file, open_tokenizer
from tuneproof.servicekit.errors import InvalidInput

_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


class _Generation(Extension):
    """`{% generation %}`, by which transformers marks what the model says; here its body alone."""

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTokenizer:
    """Renders chats as transformers' `apply_chat_template` does (5.19), and counts their ids.

    Args:
        model: a folder, or an id of the Hugging Face hub.

    Raises:
        InvalidInput: it lacks a chat template or a tokenizer.
    """

    def __init__(self, model: str) -> None:
        self._tokenizer: Tokenizer = open_tokenizer(model)
        config = json.loads(model_file(model, "tokenizer_config.json").read_bytes())
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        try:
            self._template = environment.from_string(_template_of(model, config))
        except TemplateError as error:
            raise InvalidInput(f"the chat template of {model} cannot be read: {error}") from None
        self._words = {name: word for name in _SPECIAL if (word := _word(config.get(name)))}

    def ids(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """The prompt's token ids, with what begins the answer.

        Raises:
            InvalidInput: the template refuses the messages.
        """
        try:
            text = self._template.render(
                messages=list(messages), add_generation_prompt=True, **self._words
            )
        except TemplateError as error:
            raise InvalidInput(f"the chat template refuses the prompt: {error}") from None
        return self._tokenizer.ids(text)


def _template_of(model: str, config: Mapping[str, Any]) -> str:
    try:
        return model_file(model, "chat_template.jinja").read_text("utf-8")
    except (InvalidInput, OSError):
        template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((t["template"] for t in template if t.get("name") == "default"), None)
    if not isinstance(template, str):
        raise InvalidInput(f"{model} has no chat template, so no token ids can be compared")
    return template


def _word(value: Any) -> str:
    return str(value.get("content", "")) if isinstance(value, Mapping) else str(value or "")


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005 - transformers takes the local time too
