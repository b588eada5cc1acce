"""Between the contract's messages and the trainer's own types."""

from __future__ import annotations

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.messages import message_of, values_of
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof_trainer.runs.runbook import RunView
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
    data = pb.TrainingData(path=spec.data_path, digest=spec.data_digest)
    return message_of(pb.RunSpec, spec, data=data)


def run_to(view: RunView) -> pb.Run:
    """The message for a run."""
    beat = view.heartbeat
    return message_of(
        pb.Run,
        view.status,
        spec=spec_to(view.spec),
        losses=view.losses,
        progress=view.progress or None,
        checkpoint_step=beat.checkpoint_step if beat else view.status.checkpoint_step,
        warning=beat.warning if beat else None,
        phase=beat.phase if beat else None,
        heartbeat_time=beat.time if beat else None,
    )
