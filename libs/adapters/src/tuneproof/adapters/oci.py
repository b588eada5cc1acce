"""Adapters in an OCI registry, as artifacts that `oras pull` understands.

    push, pull     what the commands call
    oci_http       the distribution protocol

An artifact has a layer for each of the adapter's files, titled by the file's name, and annotations
that name the adapter and its base. What is pulled is checked by the adapter's own manifest, so the
registry need not be trusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneproof.adapters.loraconfig import CONFIG_FILE
from tuneproof.adapters.manifest import (
    CARD_FILE,
    DOCUMENT_LIMIT,
    MANIFEST_FILE,
    PROVENANCE_FILE,
    WEIGHTS_FILE,
    WEIGHTS_LIMIT,
    Manifest,
)
from tuneproof.adapters.oci_http import OciHttp
from tuneproof.adapters.ref import AdapterRef
from tuneproof.servicekit.digests import sha256_of_bytes, sha256_of_file
from tuneproof.servicekit.errors import Corrupted, InvalidInput

SCHEME = "oci://"
ARTIFACT_TYPE = "application/vnd.tuneproof.adapter.v1"
ADAPTER_ANNOTATION = "dev.tuneproof.adapter"
"""`name@sha256:…` of the adapter."""
_TITLE = "org.opencontainers.image.title"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = b"{}"
_TYPES = {
    WEIGHTS_FILE: "application/vnd.safetensors",
    CONFIG_FILE: "application/json",
    MANIFEST_FILE: "application/vnd.tuneproof.adapter.manifest.v1+json",
    PROVENANCE_FILE: "application/json",
    CARD_FILE: "text/markdown",
}
_REQUIRED = (WEIGHTS_FILE, CONFIG_FILE, MANIFEST_FILE)
_PLACE = re.compile(
    r"oci://(?P<host>[A-Za-z0-9.-]+(?::\d{1,5})?)/"
    r"(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def push(folder: Path, ref: AdapterRef, url: str) -> str:
    """Sends an adapter's files to an OCI registry; blobs that it has are not sent again.

    Args:
        folder: as `Registry.fetch` gives it.
        url: `oci://HOST/REPOSITORY[:TAG]`, by default the tag `latest`. HTTPS, except to this
            machine. Credentials are those that `docker login` or `oras login` wrote in plain form.

    Returns:
        the digest of the artifact in that registry.

    Raises:
        InvalidInput: for a malformed URL.
        Unauthenticated, Forbidden: when the registry wants other credentials.
        Unavailable: when it does not answer; pushing again is safe.
    """
    place = _parse(url)
    if place["digest"]:
        raise InvalidInput(f"{url} names a digest; push to a tag", field="url")
    registry = OciHttp(place["host"], place["repository"], writes=True)
    base = Manifest.parse((folder / MANIFEST_FILE).read_bytes()).base
    layers = []
    for name, kind in _TYPES.items():
        if (path := folder / name).is_file():
            digest = sha256_of_file(path)
            registry.put_blob(digest, path)
            layers.append(
                {
                    "mediaType": kind,
                    "digest": digest,
                    "size": path.stat().st_size,
                    "annotations": {_TITLE: name},
                }
            )
    registry.put_blob(sha256_of_bytes(_EMPTY), _EMPTY)
    described = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": sha256_of_bytes(_EMPTY),
            "size": len(_EMPTY),
        },
        "layers": layers,
        "annotations": {
            ADAPTER_ANNOTATION: str(ref),
            "dev.tuneproof.base.config": base.config_digest,
        },
    }
    data = json.dumps(described, sort_keys=True).encode()
    registry.put_manifest(place["tag"] or "latest", data, _MANIFEST)
    return sha256_of_bytes(data)


def pull(url: str, folder: Path) -> AdapterRef:
    """Fetches an adapter's files, and no others, from an OCI registry.

    Args:
        url: as of `push`, or with `@sha256:…` in place of a tag.
        folder: an empty one.

    Returns:
        the adapter that the artifact says it is; its digest is that of the manifest in the folder.

    Raises:
        InvalidInput: for a malformed URL.
        NotFound: when there is no such artifact.
        Corrupted: when it is no adapter, not the one that it says, or damaged.
        Unauthenticated, Forbidden, Unavailable: as `push`.
    """
    place = _parse(url)
    registry = OciHttp(place["host"], place["repository"])
    wanted = place["digest"] or place["tag"] or "latest"
    data = registry.manifest(wanted, _MANIFEST, DOCUMENT_LIMIT)
    if place["digest"] and sha256_of_bytes(data) != place["digest"]:
        raise Corrupted(f"{url} has the digest {sha256_of_bytes(data)}")
    ref, layers = _described(url, data)
    for name, (digest, size) in layers.items():
        registry.blob(digest, size, folder / name)
    found = Manifest.parse((folder / MANIFEST_FILE).read_bytes()).digest
    if found != ref.digest:
        raise Corrupted(f"{url} says it is {ref}, but its manifest has the digest {found}")
    return ref


def _described(url: str, data: bytes) -> tuple[AdapterRef, dict[str, tuple[str, int]]]:
    """The adapter that an artifact says it is, and its files' digests and sizes."""
    try:
        described: Mapping[str, Any] = json.loads(data)
        ref = AdapterRef.parse(described["annotations"][ADAPTER_ANNOTATION])
        layers = {
            layer["annotations"][_TITLE]: (str(layer["digest"]), int(layer["size"]))
            for layer in described["layers"]
            if (layer.get("annotations") or {}).get(_TITLE) in _TYPES
        }
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise Corrupted(f"{url} is not an adapter of tuneproof: {error!r}") from None
    if missing := [name for name in _REQUIRED if name not in layers]:
        raise Corrupted(f"{url} is no adapter: it lacks {', '.join(missing)}")
    for name, (_, size) in layers.items():
        limit = WEIGHTS_LIMIT if name == WEIGHTS_FILE else DOCUMENT_LIMIT
        if size > limit:
            raise Corrupted(f"{name} of {url} has {size} bytes, above {limit}")
    return ref, layers


def _parse(url: str) -> re.Match[str]:
    match = _PLACE.fullmatch(url)
    if not match:
        raise InvalidInput(
            f"{url!r} is not {SCHEME}HOST/REPOSITORY:TAG with the repository in lower case",
            field="url",
        )
    return match
