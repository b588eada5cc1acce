"""The examples of a run: what it trains on, and what it validates on."""

from __future__ import annotations

from dataclasses import dataclass

from tuneproof.adapters.storage import Storage
from tuneproof_trainer.data import Example, divide_examples, load_examples, read_lines
from tuneproof_trainer.plan.checks import HeldOut, parse_held_out, refuse_leaks
from tuneproof_trainer.spec import RunSpec


@dataclass(frozen=True)
class Examples:
    """Each in the order of its file."""

    training: list[Example]
    validation: list[Example]
    """Empty without validation."""
    held_out: HeldOut | None = None
    """What neither may hold; None where nothing is held out."""


def read_examples(store: Storage, spec: RunSpec) -> Examples:
    """The examples that a spec names, whatever they hold.

    Raises:
        InvalidInput: when a file is missing, has another digest or wrong lines, or cannot be
            divided.
        Unavailable: when the store does not answer.
    """
    training = load_examples(store, spec.data_path, spec.data_digest)
    validation: list[Example] = []
    if spec.validation_path:
        validation = load_examples(
            store, spec.validation_path, spec.validation_digest, part="validation"
        )
    elif spec.hyperparameters.validation_share:
        training, validation = divide_examples(training, spec.hyperparameters.validation_share)
    held_out = None
    if spec.held_out_path:
        content = read_lines(store, spec.held_out_path, spec.held_out_digest, part="held_out")
        held_out = parse_held_out(content, spec.held_out_path)
    return Examples(training, validation, held_out)


def load_for_training(store: Storage, spec: RunSpec) -> Examples:
    """The examples that a spec names; none of them may hold what is held out.

    Raises:
        InvalidInput: as `read_examples`, and when examples leak and the spec does not allow it.
        Unavailable: when the store does not answer.
    """
    found = read_examples(store, spec)
    if found.held_out and not spec.allow_leakage:
        refuse_leaks(found.training, found.held_out, spec.data_path)
        if spec.validation_path:
            refuse_leaks(found.validation, found.held_out, spec.validation_path)
    return found
