"""What a study needs of a cluster: its pools, its services, and its artifact store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tuneproof.cli.cluster.choosing import reach
from tuneproof.sdk import Endpoints
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.prepare import Prepared
from tuneproof.study.design.sources import BaseSource

if TYPE_CHECKING:
    from tuneproof.cluster import Reach
    from tuneproof.cluster.services import Service


def reach_for(
    prepared: Prepared, targets: Mapping[str, str], artifacts: str
) -> tuple[Prepared, Endpoints, str]:
    """The study with the addresses of its pools, the services, and the artifact store.

    Args:
        artifacts: a flag's; empty: the store of the cluster's trainer.

    Raises:
        InvalidInput: a model of the study has no pool, or this machine cannot write to the store.
    """
    there = reach()
    needs = needs_of(prepared)
    bases = prepared.sources.bases
    placed = tuple(_placed(base, there) for base in bases) if bases[0].name else bases
    sources = replace(prepared.sources, bases=placed)
    endpoints = there.endpoints(targets, needs)
    return replace(prepared, sources=sources), endpoints, artifacts or _store(there)


def calls_of(prepared: Prepared, there: Reach) -> tuple[list[Service], list[str]]:
    """The services that a study calls, each of which is there and new enough, and the flags that
    name them inside the cluster."""
    found = [there.service(role) for role in needs_of(prepared)]
    flags = [f"--{one.role}={one.inside}" for one in found]
    bases = prepared.sources.bases
    for base in bases if bases[0].name else ():
        if (pool := there.pool_of(base.name, base.generator)) is None:
            continue
        found.append(pool)
        flags += [] if base.generator else [f"--pool={base.name}={pool.inside}"]
    for service in found:
        there.check(service)
    return found, flags


def with_pools(prepared: Prepared, pools: Sequence[str]) -> Prepared:
    """The study with the generators that `--pool NAME=ADDRESS` names.

    Raises:
        InvalidInput: one is written otherwise, or the study does not list the model.
    """
    given = {name: address for name, _, address in (each.partition("=") for each in pools)}
    known = {base.name for base in prepared.sources.bases}
    for name, address in given.items():
        if ":" not in address or name not in known - {""}:
            listed = ", ".join(sorted(known - {""})) or "none"
            raise InvalidInput(
                f"--pool {name}={address}: write NAME=HOST:PORT, where NAME is a model that the"
                f" study file lists; it lists {listed}"
            )
    bases = tuple(
        replace(base, generator=given.get(base.name, base.generator))
        for base in prepared.sources.bases
    )
    return replace(prepared, sources=replace(prepared.sources, bases=bases))


def needs_of(prepared: Prepared) -> list[str]:
    """The roles that a study calls, but generators of bases that it lists."""
    spec = prepared.spec
    needs = ["retriever", "trainer"]
    needs += [] if prepared.sources.bases[0].name else ["generator"]
    return needs + (["judge"] if spec.judge is not None else [])


def _placed(base: BaseSource, there: Reach) -> BaseSource:
    """With the addresses of its pool and its trainer, unless the file names others."""
    generator, trainer = base.generator, base.trainer
    if (service := there.pool_of(base.name, generator)) is not None:
        there.check(service)
        generator = there.address(service)
    if trainer and (service := there.named(trainer)) is not None:
        trainer = there.address(service)
    return replace(base, generator=generator, trainer=trainer)


def _store(there: Reach) -> str:
    store = there.artifacts()
    if "://" not in store:
        raise InvalidInput(
            f"the artifacts of {there.cluster.place} are in a volume ({store or 'not named'}),"
            " which this machine cannot write to: add the component s3, run the study in the"
            " cluster by `tuneproof study submit`, or name another store with --artifacts"
        )
    for name, value in there.store_keys().items():
        os.environ.setdefault(name, value)
    return store
