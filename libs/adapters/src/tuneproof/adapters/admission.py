"""Whether an adapter may be given to an engine: lists all its defects at once.

vLLM silently loads flipped bits, NaN, wrong shapes and adapters of another base, and then answers
wrongly, other tenants' requests included. So everything is checked before vLLM sees a byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneproof.adapters.base import BaseIdentity
from tuneproof.adapters.loraconfig import normalise, read_lora_config, unsupported
from tuneproof.adapters.manifest import (
    DOCUMENT_LIMIT,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    WEIGHTS_LIMIT,
    Manifest,
    TensorEntry,
)
from tuneproof.adapters.pairs import all_products_are_zero, check_pairs
from tuneproof.adapters.ref import AdapterRef
from tuneproof.adapters.report import AdmissionReport, Defect
from tuneproof.adapters.shapes import architecture_of
from tuneproof.adapters.tensors import Tensor, examine, read_header
from tuneproof.servicekit.errors import Corrupted, InvalidInput

_PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})


def verify(
    folder: Path,
    *,
    base: BaseIdentity | None = None,
    base_config: dict[str, Any] | None = None,
    max_rank: int,
    expected: AdapterRef | None = None,
    max_bytes: int = WEIGHTS_LIMIT,
    allow_no_effect: bool = False,
) -> AdmissionReport:
    """Examines an adapter in a local folder; reads it once and changes nothing.

    Args:
        folder: as `Registry.fetch` gives it, or as peft wrote it.
        base: what will serve it; None leaves the base unchecked, and the report says so.
        base_config: the config.json of what will serve it; None leaves shapes unchecked against
            the base, and the report says so.
        max_rank: the largest rank the engine was started for.
        expected: what the folder should hold; None takes any.
        max_bytes: a larger weights file is refused unread.
        allow_no_effect: whether an adapter may change nothing, all of its products being zero.

    Returns:
        a report; bad adapters raise nothing here.
    """
    defects: list[Defect] = list(_pickles(folder))
    notes: list[str] = []
    config = _config(folder, defects)
    manifest = _manifest(folder, expected, defects, notes)
    tensors, entries, zeros = _weights(folder, max_bytes, defects)
    if base is None:
        notes.append("the base was not given, so it was not compared")
    elif manifest is not None:
        defects += _base_defects(manifest.base, base)
    if config is not None and tensors:
        usable = not any(defect.code == "unsupported" for defect in defects)
        architecture = architecture_of(base_config or {})
        if architecture is None:
            kind = (base_config or {}).get("model_type", "an unknown model")
            notes.append(f"shapes of {kind} are not known; only the pairs were compared")
        if usable:
            defects += check_pairs(tensors, config, architecture, max_rank)
    changes_nothing = bool(tensors) and all_products_are_zero(tensors, zeros)
    if changes_nothing and not allow_no_effect:
        defects.append(
            Defect(
                "no_effect",
                WEIGHTS_FILE,
                "every product of its matrices is zero, so the base would answer in its name: train"
                " it, or declare it with allow_no_effect",
            )
        )
    if config is not None and entries and manifest is not None:
        defects += _content_defects(manifest, entries, normalise(config))
    return AdmissionReport(
        adapter=expected,
        tensors=len(tensors),
        size_bytes=sum(tensor.size for tensor in tensors),
        defects=tuple(defects),
        notes=tuple(notes),
        changes_nothing=changes_nothing,
    )


def _pickles(folder: Path) -> Iterator[Defect]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in _PICKLES:
            yield Defect(
                "pickle",
                path.name,
                f"{path.name} may be a pickle, which can run code when read; "
                "save the adapter as safetensors and remove it",
            )


def _config(folder: Path, defects: list[Defect]) -> dict[str, Any] | None:
    try:
        config = read_lora_config(folder)
    except InvalidInput as error:
        defects.append(Defect("config", error.field, error.message))
        return None
    defects += [Defect("unsupported", field, sentence) for field, sentence in unsupported(config)]
    return config


def _manifest(
    folder: Path, expected: AdapterRef | None, defects: list[Defect], notes: list[str]
) -> Manifest | None:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        if expected is None:
            notes.append("no manifest, so neither digest nor base was compared")
        else:
            defects.append(
                Defect("digest", MANIFEST_FILE, f"no {MANIFEST_FILE}: commit the adapter first")
            )
        return None
    if path.stat().st_size > DOCUMENT_LIMIT:
        sentence = f"{MANIFEST_FILE} is larger than {DOCUMENT_LIMIT} bytes"
        defects.append(Defect("digest", MANIFEST_FILE, sentence))
        return None
    try:
        manifest = Manifest.parse(path.read_bytes())
    except Corrupted as error:
        defects.append(Defect("digest", MANIFEST_FILE, error.message))
        return None
    if expected is not None and manifest.digest != expected.digest:
        sentence = f"the manifest's digest is {manifest.digest}, not {expected.digest}"
        defects.append(Defect("digest", MANIFEST_FILE, sentence))
    return manifest


def _weights(
    folder: Path, max_bytes: int, defects: list[Defect]
) -> tuple[tuple[Tensor, ...], tuple[TensorEntry, ...], frozenset[str]]:
    """The tensors, their entries in a manifest, and the names of those that hold only zeros."""
    path = folder / WEIGHTS_FILE
    if path.is_file() and (size := path.stat().st_size) > max_bytes:
        sentence = f"{WEIGHTS_FILE} has {size} bytes, above the limit of {max_bytes}"
        defects.append(Defect("weights", WEIGHTS_FILE, sentence))
        return (), (), frozenset()
    entries = []
    zeros = set()
    try:
        tensors = read_header(path)
        for tensor, facts in examine(path, tensors):
            if not facts.finite:
                sentence = f"tensor {tensor.name} holds NaN or an infinity; train it again"
                defects.append(Defect("not_finite", tensor.name, sentence))
            if facts.zero:
                zeros.add(tensor.name)
            entries.append(
                TensorEntry(
                    name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, sha256=facts.sha256
                )
            )
    except InvalidInput as error:
        defects.append(Defect("weights", WEIGHTS_FILE, error.message))
        return (), (), frozenset()
    return tensors, tuple(entries), frozenset(zeros)


def _base_defects(made_on: BaseIdentity, served: BaseIdentity) -> Iterator[Defect]:
    parts = {
        "config_digest": "the base's configuration",
        "tokenizer_digest": "the base's tokenizer",
        "chat_template_digest": "the chat template",
    }
    here, there = served.to_json(), made_on.to_json()
    for field, part in parts.items():
        if here[field] != there[field]:
            yield Defect(
                "base",
                field,
                f"{part} at training was {there[field]}, here it is {here[field]}; "
                "serve the base it was trained on, or train it on this one",
            )


def _content_defects(
    manifest: Manifest, entries: tuple[TensorEntry, ...], config: dict[str, Any]
) -> Iterator[Defect]:
    said = {entry.name: entry for entry in manifest.tensors}
    found = {entry.name: entry for entry in entries}
    for name in sorted(said.keys() | found.keys()):
        if said.get(name) != found.get(name):
            lost, new = name not in found, name not in said
            what = "is missing" if lost else "is not in the manifest" if new else "was altered"
            yield Defect("digest", name, f"tensor {name} {what}; fetch the adapter again")
    if manifest.config != config:
        yield Defect(
            "digest",
            "adapter_config.json",
            "adapter_config.json is not what the manifest says; fetch the adapter again",
        )
