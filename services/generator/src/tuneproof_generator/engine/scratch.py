"""The engine's temporary folder: its sockets, and files by which its processes find one another.

vLLM puts them into the system's temporary folder, and leaves them there when it is killed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(owner: Path) -> Iterator[Path]:
    """A folder that the engines started meanwhile use; empty at first, removed afterwards.

    Args:
        owner: a folder that no other service has at the same time. What a killed service with the
            same one left is removed.
    """
    system = Path(tempfile.gettempdir())
    # Short: the path of a socket has 107 characters at most.
    name = hashlib.sha256(os.fsencode(owner)).hexdigest()[:12]
    folder = system / f"tuneproof-engine-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    # Compiled kernels outlive the engine.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(system / f"torchinductor_{os.getuid()}"))
    os.environ |= {"TMPDIR": str(folder), "VLLM_RPC_BASE_PATH": str(folder)}
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
