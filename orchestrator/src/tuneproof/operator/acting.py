"""What the operator asks of a pool for one object."""

from __future__ import annotations

import logging
from collections.abc import Collection

from tuneproof.operator.conditions import (
    HOW_TO_MOVE,
    Condition,
    Seen,
    Told,
    aliased_of,
    ready_of,
    told_of,
    where,
)
from tuneproof.operator.objects import AdapterObject
from tuneproof.sdk import GeneratorClient
from tuneproof.servicekit.errors import DeadlineExceeded, TuneproofError, Unavailable, WrongState

_log = logging.getLogger(__name__)
SECONDS = 20.0
AWAY = (Unavailable, DeadlineExceeded)


async def bring(
    one: AdapterObject,
    others: Collection[AdapterObject],
    leaving: Collection[AdapterObject],
    seen: Seen,
    client: GeneratorClient,
) -> tuple[AdapterObject, Told]:
    """Does what an object's change asks for, as far as the pool is by now.

    Args:
        others: of the same pool.
        leaving: objects of the pool that were deleted, and whose adapters are not removed yet.

    Returns:
        the object with what was done on its record, and what to tell of it.

    Raises:
        Unavailable, DeadlineExceeded: the pool does not answer.
    """
    refused = ""
    if one.record.generation != one.generation:
        one, seen, refused = await _declare(one, seen, client)
    ready = ready_of(one, seen, refused)
    no_alias: Condition | None = None
    if one.spec.alias and one.record.alias_generation != one.generation and ready.status == "True":
        one, seen, no_alias = await _point(one, others, leaving, seen, client)
    aliased = aliased_of(one, seen, no_alias, ready=ready.status == "True")
    if ready.status == "True" and (aliased is None or aliased.status == "True"):
        kept = {one.spec.ref}.union(*(each.spec.refs for each in (one, *others)))
        one = await _remove_former(one, kept, client)
    return one, told_of(one, seen, ready, aliased)


async def _declare(
    one: AdapterObject, seen: Seen, client: GeneratorClient
) -> tuple[AdapterObject, Seen, str]:
    ref = one.spec.ref
    try:
        info = await client.declare(ref, required=one.spec.required, timeout=SECONDS)
    except AWAY:
        raise
    except TuneproofError as error:
        return one, seen, error.message
    _log.info("%s: declared %s", one.name, ref)
    refs = tuple(dict.fromkeys((*one.record.refs, ref)))
    one = one.recorded(generation=one.generation, refs=refs)
    return one, Seen({**seen.adapters, ref: info}, seen.aliases, seen.replicas), ""


async def _point(
    one: AdapterObject,
    others: Collection[AdapterObject],
    leaving: Collection[AdapterObject],
    seen: Seen,
    client: GeneratorClient,
) -> tuple[AdapterObject, Seen, Condition | None]:
    """Points the alias, unless an older object names it too, or somebody else set it."""
    spec, name, now = one.spec, one.spec.alias, seen.aliases.get(one.spec.alias)
    older = [each for each in others if each.spec.alias == name and each.age < one.age]
    if older:
        owner = min(older, key=lambda each: each.age).name
        return one, seen, Condition("False", "AliasConflict", f"{owner} declares {name} too")
    if now is None or now.target != spec.target:
        heirlooms = [each.record for each in leaving if each.spec.alias == name]
        versions = {each.alias_version for each in (one.record, *heirlooms)}
        if now is not None and now.version not in versions and now.ref != spec.expected_ref:
            return (
                one,
                seen,
                Condition("False", "AliasElsewhere", f"{where(name, now)}; {HOW_TO_MOVE}"),
            )
        try:
            now = await client.set_alias(
                name,
                spec.ref,
                expected_ref=now.ref if now else "",
                expected_version=now.version if now else None,
                canary_ref=spec.canary_ref,
                canary_percent=spec.canary_percent,
                reason=f"Adapter {one.name}, generation {one.generation}",
                timeout=SECONDS,
            )
        except AWAY:
            raise
        except TuneproofError as error:
            return one, seen, Condition("False", "AliasRefused", error.message)
        _log.info("%s: alias %s points to %s", one.name, name, spec.ref)
    one = one.recorded(alias_generation=one.generation, alias_version=now.version)
    return one, Seen(seen.adapters, {**seen.aliases, name: now}, seen.replicas), None


async def _remove_former(
    one: AdapterObject, kept: Collection[str], client: GeneratorClient
) -> AdapterObject:
    """Removes what the object declared before its ref changed, unless an object names it."""
    for ref in one.record.refs:
        if ref not in kept:
            if not one.spec.retain:
                await _remove(one, ref, client)
            one = one.recorded(refs=tuple(each for each in one.record.refs if each != ref))
    return one


async def leave(
    gone: AdapterObject, others: Collection[AdapterObject], seen: Seen, client: GeneratorClient
) -> bool:
    """Takes out of the pool what a deleted object declared, unless another object names it.

    Returns:
        whether that is done; it is not while another object waits to take over the alias.

    Raises:
        Unavailable, DeadlineExceeded: the pool does not answer.
    """
    name, now = gone.spec.alias, seen.aliases.get(gone.spec.alias)
    mine = now is not None and now.version == gone.record.alias_version
    if mine and now is not None and now.ref in gone.record.refs:
        heirs = [each for each in others if each.spec.alias == name]
        if any(each.record.alias_generation != each.generation for each in heirs):
            return False
        if not heirs:
            await _retire(gone, now.ref, now.version, client)
    kept = frozenset().union(*(each.spec.refs for each in others))
    for ref in gone.record.refs:
        if ref not in kept:
            await _remove(gone, ref, client)
    return True


async def _retire(gone: AdapterObject, ref: str, version: int, client: GeneratorClient) -> None:
    name = gone.spec.alias
    try:
        await client.set_alias(
            name,
            "",
            expected_ref=ref,
            expected_version=version,
            force=True,
            reason=f"Adapter {gone.name} was deleted",
            timeout=SECONDS,
        )
    except WrongState as error:  # Moved at this moment.
        _log.warning("%s: alias %s stays: %s", gone.name, name, error.message)
    else:
        _log.info("%s: alias %s retired", gone.name, name)


async def _remove(one: AdapterObject, ref: str, client: GeneratorClient) -> None:
    try:
        await client.remove(ref)
    except AWAY:
        raise
    except TuneproofError as error:
        _log.warning("%s: %s stays in the pool: %s", one.name, ref, error.message)
    else:
        _log.info("%s: removed %s", one.name, ref)
