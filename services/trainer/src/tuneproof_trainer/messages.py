"""Between the contract's messages and the trainer's own types."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.messages import set_values, value_of, values_of
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof_trainer.progress import Step
from tuneproof_trainer.runbook import RunView
from tuneproof_trainer.spec import RunSpec


def spec_from(message: pb.RunSpec) -> RunSpec:
    """The spec that a message asks for, defaults of the base not filled in.

    Raises:
        InvalidInput: for a method or schedule that this version does not know.
    """
    return RunSpec(
        base_model=message.base_model,
        data_path=message.data.path,
        data_digest=message.data.digest,
        adapter_name=message.adapter_name,
        seed=message.seed,
        # Not validated: `defaults.complete` lists all mistakes, not the first.
        hyperparameters=Hyperparameters.model_construct(**values_of(message.hyperparameters)),
    )


def spec_to(spec: RunSpec) -> pb.RunSpec:
    """The message for a spec."""
    message = pb.RunSpec(
        base_model=spec.base_model,
        data=pb.TrainingData(path=spec.data_path, digest=spec.data_digest),
        adapter_name=spec.adapter_name,
        seed=spec.seed,
    )
    set_values(message.hyperparameters, spec.hyperparameters.model_dump())
    return message


def run_to(view: RunView) -> pb.Run:
    """The message for a run."""
    status = view.status
    run = pb.Run(
        id=status.id,
        spec=spec_to(view.spec),
        state=value_of(pb.RunState, str(status.state)),
        reason=status.reason,
        adapter_ref=status.adapter_ref,
        losses=[pb.LossPoint(step=step.step, loss=step.loss) for step in view.losses],
        create_time=_timestamp(status.create_time),
        provenance=status.provenance,
    )
    if view.progress:
        run.progress.CopyFrom(_progress_to(view.progress))
    if status.start_time:
        run.start_time.CopyFrom(_timestamp(status.start_time))
    if status.end_time:
        run.end_time.CopyFrom(_timestamp(status.end_time))
    return run


def _progress_to(step: Step) -> pb.RunProgress:
    eta = Duration()
    eta.FromNanoseconds(round(step.eta * 1e9))
    return pb.RunProgress(
        step=step.step,
        total_steps=step.total_steps,
        loss=step.loss,
        tokens_per_second=step.tokens_per_second,
        eta=eta,
    )


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
