"""What a base model is, as far as an adapter depends on it.

Trainer and generator both compute it from a folder in Hugging Face format, so that equal folders
give equal digests on both sides.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneproof.servicekit.digests import sha256_of_bytes, sha256_of_file, sha256_of_json
from tuneproof.servicekit.errors import InvalidInput

# They tell how the folder was written and in which precision, and change with each save.
_VOLATILE_CONFIG = frozenset(
    {"_name_or_path", "_commit_hash", "transformers_version", "torch_dtype", "dtype", "use_cache"}
)
# State of the last call, not of the tokenizer.
_VOLATILE_TOKENIZER = frozenset({"truncation", "padding"})
_SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "sep_token",
    "cls_token",
    "mask_token",
    "additional_special_tokens",
    "extra_special_tokens",
    "add_bos_token",
    "add_eos_token",
)
_VOCABULARIES = ("tokenizer.model", "tekken.json", "vocab.json", "merges.txt", "vocab.txt")


@dataclass(frozen=True)
class BaseIdentity:
    """Three digests; an adapter fits a base only if all three are equal."""

    config_digest: str
    """Of config.json without what changes from save to save."""
    tokenizer_digest: str
    """Of the vocabulary, the rules and the special tokens."""
    chat_template_digest: str
    """Of the template's text; of no bytes when there is none."""

    def to_json(self) -> dict[str, str]:
        """The form in the manifest."""
        return asdict(self)


def identify_base(folder: Path) -> BaseIdentity:
    """Identifies the base model in a local folder.

    Raises:
        InvalidInput: when the folder lacks config.json or a tokenizer, or one is not JSON.
    """
    config = read_base_config(folder)
    return BaseIdentity(
        config_digest=sha256_of_json(_without(config, _VOLATILE_CONFIG)),
        tokenizer_digest=_tokenizer_digest(folder),
        chat_template_digest=sha256_of_bytes(_chat_template(folder).encode()),
    )


def read_base_config(folder: Path) -> dict[str, Any]:
    """The base model's config.json.

    Raises:
        InvalidInput: when it is missing or not a JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise InvalidInput(
            f"no config.json in {folder}: give a folder with a model in Hugging Face format",
            field="model",
        )
    return _read_object(path)


def _without(value: Any, keys: frozenset[str]) -> Any:
    """The value without these keys, at any depth (composite configs nest)."""
    if isinstance(value, dict):
        return {name: _without(item, keys) for name, item in value.items() if name not in keys}
    if isinstance(value, list):
        return [_without(item, keys) for item in value]
    return value


def _tokenizer_digest(folder: Path) -> str:
    parts: dict[str, Any] = {"special": _special_tokens(folder)}
    path = folder / "tokenizer.json"
    if path.is_file():
        content = _read_object(path)
        parts["tokenizer"] = {
            name: item for name, item in content.items() if name not in _VOLATILE_TOKENIZER
        }
        return sha256_of_json(parts)
    vocabularies = {
        name: sha256_of_file(folder / name) for name in _VOCABULARIES if (folder / name).is_file()
    }
    if not vocabularies:
        raise InvalidInput(
            f"no tokenizer in {folder}: tokenizer.json or one of {', '.join(_VOCABULARIES)} "
            "belongs beside config.json",
            field="model",
        )
    return sha256_of_json(parts | {"files": vocabularies})


def _special_tokens(folder: Path) -> dict[str, Any]:
    """Special tokens; tokenizer_config.json wins over special_tokens_map.json, as it does when
    transformers loads them."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            content = _read_object(path)
            found |= {key: _content(content[key]) for key in _SPECIAL_TOKENS if content.get(key)}
    return found


def _content(token: Any) -> Any:
    """A token's text; it is written as the text or as an object around it."""
    if isinstance(token, dict) and "content" in token:
        return token["content"]
    if isinstance(token, list):
        return [_content(item) for item in token]
    return token


def _chat_template(folder: Path) -> str:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        path = folder / name
        template = _read_object(path).get("chat_template") if path.is_file() else None
        if isinstance(template, str):
            return template
        if template:
            return json.dumps(template, sort_keys=True)
    return ""


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON: {error}", field="model") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{path} is not a JSON object", field="model")
    return value
