"""What a caller shows to the services: a token and a certificate, from Secrets that it may read."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from base64 import b64decode
from pathlib import Path

from tuneproof.cluster.api import Cluster, Refused
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.tls import ClientTls

CLIENT_SECRET, TOKENS_SECRET = "tuneproof-client", "tuneproof-tokens"
TLS_SECRET, STORE_SECRET = "orchestrator-tls", "tuneproof-s3"


def token_in(cluster: Cluster) -> str:
    """The token of the Secret `tuneproof-client`, or one of `tuneproof-tokens`, with the role
    manage where there is one; empty where this user may read neither."""
    if token := secret(cluster, CLIENT_SECRET).get("token", b"").decode().strip():
        return token
    lines = secret(cluster, TOKENS_SECRET).get("tokens", b"").decode("utf-8", "replace")
    words = [line.split("#", 1)[0].split() for line in lines.splitlines()]
    by_role = {each[0]: each[1] for each in reversed(words) if len(each) > 1}
    return by_role.get("manage") or by_role.get("use", "")


def tls_in(cluster: Cluster) -> ClientTls:
    """The certificate of the Secret `orchestrator-tls`, in a folder that ends with the process.

    Raises:
        InvalidInput: this user may not read it, or it is not there.
    """
    files = secret(cluster, TLS_SECRET)
    if not files:
        raise InvalidInput(
            f"the services of {cluster.place} want a certificate, and this user cannot read the"
            f" Secret {TLS_SECRET}: put its files into a folder, and name it in TUNEPROOF_TLS_DIR"
        )
    folder = Path(tempfile.mkdtemp(prefix="tuneproof-tls-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return ClientTls(folder)


def secret(cluster: Cluster, name: str) -> dict[str, bytes]:
    """What a Secret holds; nothing where it is not there, or this user may not read it."""
    try:
        found = cluster.get("secrets", name)
    except Refused:
        return {}
    return {key: b64decode(value) for key, value in ((found or {}).get("data") or {}).items()}
