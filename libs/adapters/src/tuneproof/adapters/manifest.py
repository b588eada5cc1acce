"""What an adapter is, and where it comes from: two documents.

The *manifest* is hashed: the tensors, the LoRA configuration, the base. Its canonical JSON is the
file, so the digest of the adapter is the digest of that file. The *provenance* is not hashed and
names the digest: an interrupted and resumed run makes the same adapter with another history.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from tuneproof.adapters.base import BaseIdentity
from tuneproof.adapters.loraconfig import normalise, read_lora_config
from tuneproof.adapters.ref import AdapterRef
from tuneproof.adapters.tensors import examine, read_header
from tuneproof.servicekit.digests import canonical_json, sha256_of_bytes
from tuneproof.servicekit.errors import Corrupted, InvalidInput

WEIGHTS_FILE = "adapter_model.safetensors"
MANIFEST_FILE = "manifest.json"
PROVENANCE_FILE = "provenance.json"
CARD_FILE = "README.md"
DOCUMENT_LIMIT = 16 << 20
"""Bytes that a manifest or a provenance may have."""
WEIGHTS_LIMIT = 8 << 30
"""Bytes that a weights file may have by default."""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class TensorEntry(BaseModel, frozen=True, extra="forbid"):
    """One tensor in the manifest."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: Digest


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """The hashed document."""

    tensors: tuple[TensorEntry, ...]
    """Sorted by name."""
    config: dict[str, Any]
    """The normalised LoRA configuration."""
    base: BaseIdentity

    @classmethod
    def describe(cls, folder: Path, base: BaseIdentity) -> Manifest:
        """Reads a folder that peft wrote.

        Raises:
            InvalidInput: when its weights are not a sane safetensors file, or its config is not
                JSON.
        """
        path = folder / WEIGHTS_FILE
        tensors = tuple(
            TensorEntry(
                name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, sha256=facts.sha256
            )
            for tensor, facts in examine(path, read_header(path))
        )
        return cls(tensors=tensors, config=normalise(read_lora_config(folder)), base=base)

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Reads manifest.json.

        Raises:
            Corrupted: when it is not a manifest, or not in canonical form.
        """
        try:
            manifest = cls.model_validate(json.loads(data))
            is_canonical = manifest.to_bytes() == data
        except (ValueError, RecursionError) as error:
            raise Corrupted(f"{MANIFEST_FILE} is not a manifest: {_first(error)}") from None
        if not is_canonical:
            raise Corrupted(f"{MANIFEST_FILE} is not in canonical form; commit the adapter again")
        return manifest

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self.model_dump())

    @property
    def digest(self) -> str:
        """`sha256:<hex>` over the canonical JSON: the adapter's digest."""
        return sha256_of_bytes(self.to_bytes())


@dataclass(frozen=True)
class Provenance:
    """The unhashed document."""

    adapter: AdapterRef
    details: Mapping[str, Any]
    """Where it comes from: run, data digest, hyper-parameters, versions, precision, times."""

    @classmethod
    def parse(cls, data: bytes) -> Provenance:
        """Reads provenance.json.

        Raises:
            Corrupted: when it is not a provenance document.
        """
        try:
            document = json.loads(data)
            return cls(AdapterRef.parse(document["adapter"]), dict(document["details"]))
        except (ValueError, KeyError, TypeError, RecursionError, InvalidInput) as error:
            raise Corrupted(f"{PROVENANCE_FILE} is not a provenance document: {error}") from None

    def to_bytes(self) -> bytes:
        """Indented JSON, for people."""
        document = {"adapter": str(self.adapter), "details": dict(self.details)}
        return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).encode()


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
