"""`tuneproof operator`: adapters by kubectl, for a cluster that has the kind `Adapter`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from tuneproof.cli.cluster.choosing import chosen
from tuneproof.cli.console import plain_errors
from tuneproof.cli.options import STATE, TokenOption
from tuneproof.operator import OperatorSettings, run_operator
from tuneproof.sdk import Endpoints, GeneratorClient
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.logs import configure_logging

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def operator_command(
    ctx: typer.Context,
    *,
    target: Annotated[
        str,
        typer.Option(
            envvar="TUNEPROOF_OPERATOR_TARGET",
            help="Where a pool's replicas listen; {pool} stands for the name of its Service.",
        ),
    ] = "dns:///{pool}:50051",
    seconds: Annotated[
        float,
        typer.Option(
            envvar="TUNEPROOF_OPERATOR_SECONDS",
            min=0.1,
            help="Looks at each pool at least that often; when the pool tells a change, at once.",
        ),
    ] = 5.0,
    health_bind: Annotated[
        str,
        typer.Option(
            envvar="TUNEPROOF_OPERATOR_HEALTH_BIND",
            help="Answers GET /healthz here, as 0.0.0.0:8080; by default nowhere.",
        ),
    ] = "",
    token: TokenOption = "",
) -> None:
    """Mirror objects of the kind Adapter to and from their pools, until a signal.

    Its token needs the role manage: TUNEPROOF_TOKEN, or TUNEPROOF_TOKEN_FILE. The cluster is that
    of its pod, or of the kubeconfig. It follows the objects of the namespace that --namespace
    names; in a pod by default its own.
    """
    with plain_errors():
        source = ctx.find_root().get_parameter_source("namespace")
        given = source is not None and source.name != "DEFAULT"
        if not given and not _NAMESPACE.exists():
            raise InvalidInput("give --namespace: this process is in no pod")
        configure_logging("operator", level="info", as_json=False)
        known = Endpoints.discover(STATE, {"token": token})

        def open_client(pool: str) -> GeneratorClient:
            address = target.replace("{pool}", pool)
            return GeneratorClient(address, token=known.token, tls=known.tls)

        followed = chosen.namespace if given else _NAMESPACE.read_text().strip()
        asyncio.run(run_operator(OperatorSettings(followed, seconds, health_bind), open_client))
