"""Where the four services listen."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuneproof.servicekit.client import Token
from tuneproof.servicekit.errors import InvalidInput, Unavailable
from tuneproof.servicekit.tls import ClientTls

SERVICES = ("retriever", "generator", "trainer", "judge")
TLS_DIR, TLS_SERVER_NAME = "TUNEPROOF_TLS_DIR", "TUNEPROOF_TLS_SERVER_NAME"
_FILE = "endpoints.json"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses `host:port` by service, empty where none is known."""

    retriever: str = ""
    generator: str = ""
    trainer: str = ""
    judge: str = ""
    token: Token | None = field(default=None, repr=False)
    """Sent as bearer token with every call."""
    tls: ClientTls | None = None
    """For all services but those that this machine started, which speak plaintext."""
    health: Mapping[str, str] = field(default_factory=dict)
    """Health addresses of the services that this machine started, by service."""
    openai: str = ""
    """Base URL of the OpenAI API of a generator that this machine started, or forwards."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What a service is called where its address, the key, is a port that this machine forwards."""

    def target(self, service: str) -> str:
        """The address of a service.

        Raises:
            Unavailable: when none is known.
        """
        address: str = getattr(self, service)
        if not address:
            raise Unavailable(
                f"no address of the {service} is known: start the services with `tuneproof up`,"
                f" or give --{service} HOST:PORT or {variable_of(service)}"
            )
        return address

    def name_of(self, address: str) -> str:
        """What stays the same of an address: itself, or the name of what is forwarded."""
        return self.names.get(address, address)

    def tls_of(self, service: str, target: str = "") -> ClientTls | None:
        """How to encrypt calls to a service, or to another target of its kind."""
        if service in self.health or self.tls is None:
            return None
        name = self.names.get(target or getattr(self, service), "")
        return self.tls.named(name) if name and not self.tls.server_name else self.tls

    @classmethod
    def discover(
        cls,
        state_dir: Path,
        overrides: Mapping[str, str | None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Endpoints:
        """Finds the services: flags before environment before what `tuneproof up` left.

        Args:
            state_dir: holds `endpoints.json` while services that this machine started run.
            overrides: by service, and `token`; empty ones count as absent.
            environment: `TUNEPROOF_<SERVICE>_TARGET`, `TUNEPROOF_TOKEN` or `TUNEPROOF_TOKEN_FILE`,
                `TUNEPROOF_TLS_DIR`, `TUNEPROOF_TLS_SERVER_NAME`; this process's own when None.

        Raises:
            InvalidInput: for an unreadable `endpoints.json`, unusable certificates, or an address
                that is not `host:port`; all of them in one message.
        """
        flags = overrides or {}
        variables = os.environ if environment is None else environment
        local = _read_local(state_dir / _FILE)
        found: dict[str, str] = {}
        health: dict[str, str] = {}
        mistakes = []
        for service in SERVICES:
            chosen = flags.get(service) or variables.get(variable_of(service))
            address = chosen or local.get(service, {}).get("grpc", "")
            if address and not _is_address(address):
                mistakes.append(f"the address of the {service} is {address!r}, not host:port")
            found[service] = address
            if not chosen and "health" in local.get(service, {}):
                health[service] = local[service]["health"]
        if mistakes:
            raise InvalidInput("; ".join(mistakes))
        token: Token | None = flags.get("token") or variables.get("TUNEPROOF_TOKEN") or None
        if token is None and (file := variables.get("TUNEPROOF_TOKEN_FILE")):
            token = Path(file)
        folder, name = variables.get(TLS_DIR), variables.get(TLS_SERVER_NAME, "")
        tls = ClientTls(Path(folder), server_name=name) if folder else None
        mine = local.get("generator", {})
        openai = mine.get("openai", "") if found["generator"] == mine.get("grpc") else ""
        return cls(**found, token=token, tls=tls, health=health, openai=openai, names={})


def variable_of(service: str) -> str:
    """The environment variable that holds a service's address."""
    return f"TUNEPROOF_{service.upper()}_TARGET"


def _is_address(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    return bool(host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536)


def _read_local(path: Path) -> dict[str, dict[str, str]]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"cannot read {path}: {error}; delete it and start the services with `tuneproof up`"
        ) from None
    if not isinstance(content, dict):
        raise InvalidInput(f"{path} is not a JSON object; delete it and run `tuneproof up`")
    return {name: entry for name, entry in content.items() if isinstance(entry, dict)}
