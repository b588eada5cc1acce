"""Settings of a service: flags first, then the environment, then defaults."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict, SettingsError

S = TypeVar("S", bound="ServiceSettings")

_ANY_PORT = "127.0.0.1:0"


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; an IPv6 host has brackets.

    Raises:
        ValueError: when it is not an address.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port with a port from 0 to 65535")
    return host.strip("[]"), int(port)


def _address(value: str) -> str:
    split_address(value)
    return value


Address = Annotated[str, AfterValidator(_address)]
"""A setting `host:port`."""


def settings_config(service: str) -> SettingsConfigDict:
    """The `model_config` of a service's settings.

    Args:
        service: as `judge`; variables are then called TUNEPROOF_JUDGE_….
    """
    return SettingsConfigDict(
        env_prefix=f"TUNEPROOF_{service.upper()}_",
        env_ignore_empty=True,
        extra="forbid",
        nested_model_default_partial_update=False,
        protected_namespaces=(),
    )


class ServiceSettings(BaseSettings):
    """The settings of every service. A service's own settings extend them."""

    bind: Address = Field(
        _ANY_PORT, description="host:port of the gRPC server; port 0 takes a free one."
    )
    health_bind: Address = Field(
        _ANY_PORT,
        description="host:port of the plaintext health server (services `live` and `ready`).",
    )
    metrics_bind: Address = Field(
        _ANY_PORT, description="host:port of the Prometheus page /metrics."
    )
    tokens_file: Path | None = Field(
        None,
        description="File of bearer tokens, one a line: `use TOKEN` or `manage TOKEN`, optionally"
        " followed by the holder's name. Read again when it changes. Without it no token is"
        " required; that is allowed only on a loopback address, or with tls_client_certificates.",
    )
    token_review: bool = Field(
        False,
        description="Ask Kubernetes whose a bearer token is (TokenReview), and whether its holder"
        " may `use` or `manage` this service (SubjectAccessReview); instead of tokens_file, in a"
        " pod.",
    )
    token_audience: str = Field(
        "tuneproof", description="With token_review: the audience that tokens must name."
    )
    tls_dir: Path | None = Field(
        None,
        description="Folder with tls.crt and tls.key, such as a Secret of cert-manager. Every port"
        " but health_bind then speaks TLS only. Read again when the files change.",
    )
    tls_client_certificates: bool = Field(
        False,
        description="Refuse clients without a certificate that an authority in ca.crt of tls_dir"
        " signed (mTLS).",
    )
    announce_file: Path | None = Field(
        None, description="File to which the service writes its addresses as JSON when it serves."
    )
    drain_seconds: float = Field(
        20.0, ge=0, description="Seconds that running calls get to finish after SIGTERM."
    )
    max_message_bytes: int = Field(
        16 * 2**20, ge=2**16, description="Longest gRPC message in either direction, in bytes."
    )
    max_calls: int = Field(
        256,
        ge=1,
        description="Calls that run at the same time; a batch stream counts as one. Further calls"
        " are refused with RESOURCE_EXHAUSTED. Health and reflection do not count.",
    )
    max_watchers: int = Field(
        128,
        ge=1,
        description="Watch streams that run at the same time; they do not count as calls.",
    )
    max_connection_age_seconds: float = Field(
        0,
        ge=0,
        description="Seconds after which a gRPC connection takes no new call, so that the client"
        " makes another one and finds new replicas; 0 means never. Set it where several replicas"
        " serve.",
    )
    max_connection_age_grace_seconds: float = Field(
        0,
        ge=0,
        description="Seconds that the calls of such a connection may still run before they fail"
        " with UNAVAILABLE; 0 lets them all finish.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe message that is logged."
    )
    log_format: Literal["json", "text"] = Field(
        "json", description="Format of the log lines on standard error."
    )

    @model_validator(mode="after")
    def _open_only_with_authentication(self) -> ServiceSettings:
        self.require_authentication("bind", self.bind)
        return self

    @model_validator(mode="after")
    def _authentication_is_complete(self) -> ServiceSettings:
        if self.tokens_file and self.token_review:
            raise ValueError("tokens_file and token_review are both set: leave one out")
        if self.tls_client_certificates and self.tls_dir is None:
            raise ValueError(
                "tls_client_certificates needs tls_dir: the folder with ca.crt, tls.crt and tls.key"
            )
        return self

    def require_authentication(self, setting: str, address: str) -> None:
        """Refuses an address that other machines reach without showing who they are.

        Raises:
            ValueError: with what to set.
        """
        shown = self.tokens_file or self.token_review or self.tls_client_certificates
        if not shown and not is_loopback(address):
            raise ValueError(
                f"{setting} {address} is reachable from other machines, so tokens are required:"
                " set tokens_file, token_review or tls_client_certificates, or bind to 127.0.0.1"
            )


def join_address(host: str, port: int) -> str:
    """`host:port`, as `split_address` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches `host:port`."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(
    settings_type: type[S], *, program: str, examples: str, arguments: Sequence[str] | None
) -> S:
    """Reads settings from flags and environment.

    Ends the program with code 2, and every mistake on a line of its own, when they do not fit.
    """
    summary = (settings_type.__doc__ or "").strip().splitlines()[0]
    source: CliSettingsSource[Any] = CliSettingsSource(
        settings_type,
        cli_prog_name=program,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_exit_on_error=True,
    )
    source.root_parser.description = (
        f"{summary} Each flag is also an environment variable:"
        f" --some-flag is {settings_type.model_config.get('env_prefix', '')}SOME_FLAG."
    )
    source.root_parser.epilog = examples
    try:
        flags = source(args=list(sys.argv[1:] if arguments is None else arguments))
        return settings_type(_cli_settings_source=flags)  # type: ignore[call-arg]
    except ValidationError as error:
        mistakes = [_explain(mistake) for mistake in error.errors()]
    except SettingsError as error:
        mistakes = [str(error)]
    for mistake in mistakes:
        print(f"{program}: {mistake}", file=sys.stderr)
    raise SystemExit(2)


def _explain(mistake: Any) -> str:
    flag = ".".join(str(part) for part in mistake["loc"]).replace("_", "-")
    text = mistake["msg"].removeprefix("Value error, ")
    return f"--{flag}: {text} (got {mistake['input']!r})" if flag else text
