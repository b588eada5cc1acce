"""Training data on its way to the artifact store, from which trainers read."""

from __future__ import annotations

from pathlib import Path

import fsspec

from tuneproof.servicekit.digests import sha256_of_bytes
from tuneproof.servicekit.files import write_atomically

FOLDER = "datasets"
"""In the artifact store; each file in it is named by its digest."""


def store_data(artifacts: str, data: bytes) -> tuple[str, str]:
    """Puts training data into an artifact store, once.

    Args:
        artifacts: the store: a folder, or a URL of fsspec.
        data: JSON Lines of conversations.

    Returns:
        the file's path in the store, and its digest, as a run's spec names them.

    Raises:
        OSError: the store cannot be written.
    """
    digest = sha256_of_bytes(data)
    path = f"{FOLDER}/{digest.removeprefix('sha256:')}.jsonl"
    filesystem, root = fsspec.core.url_to_fs(artifacts)
    target = f"{root.rstrip('/')}/{path}"
    if not filesystem.exists(target):
        if "file" in filesystem.protocol:
            write_atomically(Path(target), data)
        else:
            filesystem.pipe_file(target, data)
    return path, digest
