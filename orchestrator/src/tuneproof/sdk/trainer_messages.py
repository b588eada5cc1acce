"""The trainer's messages as values, and back."""

from __future__ import annotations

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.sdk.runs import RunInfo, RunProgress, RunSpec
from tuneproof.servicekit.messages import set_values, value_from, values_of
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
    eta = message.progress.eta.ToTimedelta().total_seconds()
    return value_from(
        RunInfo,
        message,
        spec=spec_of(message.spec),
        progress=value_from(RunProgress, message.progress, eta_seconds=eta),
        losses=tuple((point.step, point.loss) for point in message.losses),
    )
