"""The pool's folder in the artifact store: small objects that every replica reads.

<artifacts>/pools/<model>/adapters/<name>/<hex>.json   one per declared adapter
<artifacts>/pools/<model>/aliases/<alias>/<n>.json     one per change of an alias, n from 1
<artifacts>/pools/<model>/replicas/<replica>.json      one per replica, renewed while it lives
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from tuneproof.adapters import BoundedStore, ObjectStore, open_storage


def open_pool(artifacts: str, model_name: str, *, seconds: float = 10.0) -> ObjectStore:
    """The folder of the pool that serves a base model.

    Args:
        artifacts: URL of the artifact store: a folder, or s3://bucket/prefix.
        seconds: how long one call may take.

    Raises:
        InvalidInput: for a URL that cannot be opened.
    """
    url = f"{artifacts.rstrip('/')}/pools/{quote(model_name, safe='')}"
    return BoundedStore(open_storage(url), seconds)


def content_of(data: bytes) -> dict[str, Any]:
    """What an object of the pool's folder holds.

    Raises:
        ValueError: when it is no JSON object, as after a write that was cut off.
    """
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - about a value, not an argument's type
    return content
