"""Finding the base model's folder."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from tuneproof.servicekit.errors import InvalidInput

_WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]


def resolve_model(model: str) -> tuple[Path, str]:
    """The folder of a model, and its name; what the hub has is downloaded once.

    Args:
        model: a folder, or a model id such as `meta-llama/Llama-3.1-8B-Instruct`.

    Raises:
        InvalidInput: when it is neither, or the hub does not give it.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.absolute(), folder.absolute().name
    try:
        return Path(snapshot_download(model, allow_patterns=_WANTED)), model
    except (HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidInput(
            f"--model {model} is no folder here, and the hub does not give it: {reason}."
            " Give a folder in Hugging Face format or another id; a gated model needs HF_TOKEN",
            field="model",
        ) from None
