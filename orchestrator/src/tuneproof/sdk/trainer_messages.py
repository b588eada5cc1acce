"""The trainer's messages as values, and back."""

from __future__ import annotations

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.sdk.conversions import time_of
from tuneproof.sdk.runs import RunInfo, RunProgress, RunSpec
from tuneproof.servicekit.messages import set_values, values_of, word_of
from tuneproof.trainer.v1 import trainer_pb2 as pb


def spec_message(spec: RunSpec) -> pb.RunSpec:
    """The message of a spec.

    Raises:
        InvalidInput: for a method or a schedule that is not known.
    """
    message = pb.RunSpec(
        base_model=spec.base_model,
        data=pb.TrainingData(path=spec.data_path, digest=spec.data_digest),
        adapter_name=spec.adapter_name,
        seed=spec.seed,
    )
    set_values(message.hyperparameters, spec.hyperparameters.model_dump(exclude_unset=True))
    return message


def spec_of(message: pb.RunSpec) -> RunSpec:
    """The spec of a message."""
    return RunSpec(
        adapter_name=message.adapter_name,
        data_path=message.data.path,
        data_digest=message.data.digest,
        base_model=message.base_model,
        seed=message.seed,
        # Not validated: what a trainer of another version allows is its business.
        hyperparameters=Hyperparameters.model_construct(**values_of(message.hyperparameters)),
    )


def run_of(message: pb.Run) -> RunInfo:
    """The run of a message."""
    progress = message.progress
    return RunInfo(
        id=message.id,
        spec=spec_of(message.spec),
        state=word_of(pb.RunState, message.state),
        reason=message.reason,
        progress=RunProgress(
            step=progress.step,
            total_steps=progress.total_steps,
            loss=progress.loss,
            tokens_per_second=progress.tokens_per_second,
            eta_seconds=progress.eta.ToTimedelta().total_seconds(),
        ),
        adapter_ref=message.adapter_ref,
        losses=tuple((point.step, point.loss) for point in message.losses),
        create_time=time_of(message, "create_time"),
        start_time=time_of(message, "start_time"),
        end_time=time_of(message, "end_time"),
        provenance=dict(message.provenance),
    )
