"""The flags `--context`, `--namespace` and `--via`, and the addresses that they choose.

The functions import `tuneproof.cluster`: Kubernetes' client is slow to load, and an extra.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from tuneproof.sdk import Endpoints
from tuneproof.servicekit.errors import InvalidInput, TuneproofError

if TYPE_CHECKING:
    from tuneproof.cluster import Cluster, Reach

NAMESPACE = "tuneproof"
Via = Literal["forward", "direct", "gateway"]
_FLAGS = ("--context", "--namespace", "--via")


@dataclass
class Chosen:
    """What the flags say."""

    context: str = ""
    """Of the kubeconfig; empty: no cluster."""
    namespace: str = NAMESPACE
    via: Via = "forward"


chosen = Chosen()


def complete_contexts(incomplete: str) -> list[str]:
    """The kubeconfig's contexts that begin with what was typed."""
    try:
        from tuneproof.cluster import contexts  # noqa: PLC0415 - see above

        return [name for name in contexts() if name.startswith(incomplete)]
    except TuneproofError:
        return []


ContextOption = Annotated[
    str,
    typer.Option(
        envvar="TUNEPROOF_CONTEXT",
        autocompletion=complete_contexts,
        help="Call the services of a cluster: a context of the kubeconfig. It may stand anywhere.",
    ),
]
NamespaceOption = Annotated[
    str, typer.Option(envvar="TUNEPROOF_NAMESPACE", help="Where they are in that cluster.")
]
ViaOption = Annotated[
    Via,
    typer.Option(
        envvar="TUNEPROOF_VIA",
        help="How to reach them: by ports that this process forwards, by the pods' addresses where"
        " this machine is in their network, or by a Gateway's routes.",
    ),
]


class Root(TyperGroup):
    """The root of the command, which takes the flags of the cluster wherever they stand."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Moves them to the front."""
        return super().parse_args(ctx, to_front(args))


def to_front(args: Sequence[str]) -> list[str]:
    """The arguments with the cluster's flags first; what follows `--` stays."""
    end = list(args).index("--") if "--" in args else len(args)
    front: list[str] = []
    rest: list[str] = []
    left = iter(args[:end])
    for each in left:
        if each in _FLAGS:
            front += [each, *([value] if (value := next(left, None)) is not None else [])]
        elif each.startswith(tuple(f"{flag}=" for flag in _FLAGS)):
            front.append(each)
        else:
            rest.append(each)
    return [*front, *rest, *args[end:]]


def in_cluster() -> bool:
    """Whether the flags name a cluster."""
    return bool(chosen.context)


def cluster() -> Cluster:
    """The namespace that the flags name.

    Raises:
        InvalidInput: they name none, or the kubeconfig lacks the context.
    """
    if not chosen.context:
        raise InvalidInput(
            "name the cluster: --context NAME, a context of your kubeconfig, or TUNEPROOF_CONTEXT"
        )
    return _reach(chosen.context, chosen.namespace, chosen.via).cluster


def reach() -> Reach:
    """The services there; one for the whole process."""
    cluster()
    return _reach(chosen.context, chosen.namespace, chosen.via)


@cache
def _reach(context: str, namespace: str, via: Via) -> Reach:
    from tuneproof.cluster import Cluster, Reach  # noqa: PLC0415 - see above

    return Reach(Cluster(context, namespace), via)


def endpoints_of(state: Path, targets: Mapping[str, str | None], needs: Sequence[str]) -> Endpoints:
    """The services that a command needs: of the cluster, where one is named; else those that
    flags, environment or `tuneproof up` name.

    Args:
        state: holds what `tuneproof up` left.
        targets: what flags say, by service, and `token`.
        needs: roles of services.
    """
    if not chosen.context:
        return Endpoints.discover(state, targets)
    return reach().endpoints(targets, needs)
