"""Settings of a spec that are out of bounds or cannot hold together: pairs of a field and a
sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tuneproof.adapters.hyperparameters import Hyperparameters, out_of_bounds
from tuneproof.adapters.ref import DIGEST_PATTERN, NAME_PATTERN
from tuneproof_trainer.bases import Base
from tuneproof_trainer.plan.batches import divisors
from tuneproof_trainer.plan.device import Device
from tuneproof_trainer.spec import RunSpec

_MODULE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
Mistake = tuple[str, str]


def contradictions(spec: RunSpec, base: Base, device: Device) -> Iterator[Mistake]:
    """All of them, of a spec with its defaults filled in; each begins with its field's name."""
    given = spec.hyperparameters
    yield from _names(spec, base)
    yield from _files(spec)
    broken = dict(out_of_bounds(given))
    for field, sentence in (
        *broken.items(),
        *_modules(given, base),
        *_parameters(given, base),
        *_length(given, base),
        *_batch(given, device, broken),
        *_optimizer(given, device),
        *_validation(spec),
    ):
        yield f"hyperparameters.{field}", sentence


def _names(spec: RunSpec, base: Base) -> Iterator[Mistake]:
    if spec.base_model != base.name:
        yield (
            "base_model",
            f"base_model {spec.base_model!r} is not this trainer's base, {base.name!r}",
        )
    if not NAME_PATTERN.fullmatch(spec.adapter_name):
        yield (
            "adapter_name",
            f"adapter_name {spec.adapter_name!r} does not match {NAME_PATTERN.pattern}",
        )
    if spec.seed >= 2**32:
        yield "seed", f"seed is {spec.seed}, not 0 to {2**32 - 1}"


def _files(spec: RunSpec) -> Iterator[Mistake]:
    files = {
        "data": (spec.data_path, spec.data_digest),
        "validation": (spec.validation_path, spec.validation_digest),
        "held_out": (spec.held_out_path, spec.held_out_digest),
    }
    for name, (given, digest) in files.items():
        if name != "data" and not given and not digest:
            continue
        path = PurePosixPath(given)
        if not given:
            yield f"{name}.path", f"{name}.path is empty"
        elif path.is_absolute() or ".." in path.parts or "\\" in given or "\0" in given:
            yield (
                f"{name}.path",
                f"{name}.path {given!r} leads out of the artifact store; give it relative to it",
            )
        if not DIGEST_PATTERN.fullmatch(digest):
            yield (
                f"{name}.digest",
                f"{name}.digest {digest!r} is not `sha256:` and 64 hexadecimal digits",
            )
    if spec.validation_digest and spec.validation_digest == spec.data_digest:
        yield "validation.digest", "validation.digest is that of data: it would validate on itself"


def _modules(given: Hyperparameters, base: Base) -> Iterator[Mistake]:
    for field in ("target_modules", "skip_modules", "target_parameters"):
        modules = getattr(given, field)
        odd = [module for module in modules if not _MODULE.fullmatch(module)]
        if odd:
            yield field, f"{field} holds {odd}, which are not module names"
        if len(set(modules)) < len(modules):
            yield field, f"{field} names a module twice"
    known = base.linear_layers
    strange = [
        module for module in given.target_modules if known and module.split(".")[-1] not in known
    ]
    if strange:
        yield (
            "target_modules",
            f"target_modules holds {strange}; the base's linear layers are {list(known)}",
        )
    if given.skip_modules and given.method != "qlora_nf4":
        yield "skip_modules", "skip_modules is given, but method LORA quantises nothing"
    elif known and set(known) <= set(given.skip_modules):
        yield (
            "skip_modules",
            (
                "skip_modules names every linear layer of the base, so nothing would be quantised;"
                " use method lora"
            ),
        )


def _parameters(given: Hyperparameters, base: Base) -> Iterator[Mistake]:
    if not given.target_parameters:
        return
    if not base.has_experts:
        yield (
            "target_parameters",
            (
                "target_parameters is given, but the base is no mixture of experts; name linear"
                " layers in target_modules"
            ),
        )
    if given.dropout:
        yield (
            "target_parameters",
            (
                f"target_parameters is given with dropout {given.dropout:g}: peft trains parameters"
                " without dropout only"
            ),
        )


def _length(given: Hyperparameters, base: Base) -> Iterator[Mistake]:
    longest = base.longest_context
    if longest is not None and given.max_length > longest:
        yield "max_length", f"max_length is {given.max_length:g}, not 2 to {longest}"
    if not given.epochs and not given.max_steps:
        yield "epochs", "epochs and max_steps are both 0: nothing would be trained"


def _batch(given: Hyperparameters, device: Device, broken: dict[str, str]) -> Iterator[Mistake]:
    if {"effective_batch_size", "micro_batch_size"} & broken.keys():
        return
    rows, size = given.effective_batch_size, given.micro_batch_size
    if not divisors(rows, device.count):
        yield (
            "effective_batch_size",
            f"effective_batch_size is {rows}, which {device.count} devices cannot share equally",
        )
    elif rows // device.count % size:
        batch = f"effective_batch_size {rows}" + (
            f" on {device.count} devices" if device.count > 1 else ""
        )
        yield "micro_batch_size", f"micro_batch_size is {size}, which does not divide {batch}"


def _optimizer(given: Hyperparameters, device: Device) -> Iterator[Mistake]:
    if given.optimizer.startswith("paged_") and not device.on_gpu:
        yield (
            "optimizer",
            (
                f"optimizer is {given.optimizer}, which pages between GPU and host; this trainer's"
                " device is the CPU"
            ),
        )


def _validation(spec: RunSpec) -> Iterator[Mistake]:
    given = spec.hyperparameters
    if spec.validation_path and given.validation_share:
        yield (
            "validation_share",
            (
                f"validation_share is {given.validation_share:g}, but validation names a file: give"
                " one of them"
            ),
        )
    if spec.validates:
        return
    for field, what in (
        ("early_stopping_patience", "the training could not know when to stop"),
        ("validation_steps", "there is nothing to validate on"),
    ):
        if value := getattr(given, field):
            yield (
                field,
                f"{field} is {value}, but neither validation nor validation_share is given: {what}",
            )
