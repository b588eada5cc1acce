"""The pool's folder in the artifact store: small objects that every replica reads.

<artifacts>/pools/<model>/adapters/<name>/<hex>.json   one per declared adapter
<artifacts>/pools/<model>/aliases/<alias>/<n>.json     one per change of an alias, n from 1
<artifacts>/pools/<model>/replicas/<replica>.json      one per replica, renewed while it lives
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from pydantic import PlainSerializer, PlainValidator

from tuneproof.adapters import AdapterRef, BoundedStore, ObjectStore, open_storage

StoredRef = Annotated[
    AdapterRef, PlainValidator(lambda text: AdapterRef.parse(str(text))), PlainSerializer(str)
]
"""A reference, as `name@sha256:<hex>` in an object."""


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
