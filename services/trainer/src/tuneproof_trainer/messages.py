"""Between the contract's messages and the trainer's own types."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.servicekit.messages import message_of, values_of
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof_trainer.plan.planner import Plan
from tuneproof_trainer.runs.runbook import RunView
from tuneproof_trainer.spec import RunSpec


def spec_from(message: pb.RunSpec) -> RunSpec:
    """The spec that a message asks for, defaults of the base not filled in.

    Raises:
        InvalidInput: for a method or schedule that this version does not know.
    """
    # Not validated: `defaults.complete` lists all mistakes, not the first.
    return RunSpec.model_construct(
        base_model=message.base_model,
        data_path=message.data.path,
        data_digest=message.data.digest,
        adapter_name=message.adapter_name,
        seed=message.seed,
        validation_path=message.validation.path,
        validation_digest=message.validation.digest,
        held_out_path=message.held_out.path,
        held_out_digest=message.held_out.digest,
        allow_leakage=message.allow_leakage,
        hyperparameters=Hyperparameters.model_construct(**values_of(message.hyperparameters)),
    )


def spec_to(spec: RunSpec) -> pb.RunSpec:
    """The message for a spec."""
    files = {
        name: pb.TrainingData(path=path, digest=digest)
        for name, path, digest in (
            ("data", spec.data_path, spec.data_digest),
            ("validation", spec.validation_path, spec.validation_digest),
            ("held_out", spec.held_out_path, spec.held_out_digest),
        )
        if path or digest
    }
    return message_of(pb.RunSpec, spec, **files)


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


def plan_to(plan: Plan) -> pb.PlanRunResponse:
    """The message for a plan."""
    given = plan.examined
    reply = pb.PlanRunResponse(
        spec=spec_to(plan.spec),
        total_steps=plan.steps,
        total_tokens=plan.tokens,
        accumulation=plan.spec.accumulation // plan.device.count,
        devices=plan.device.count,
        memory=[pb.MemoryPart(name=name, bytes=size) for name, size in plan.memory.items()],
        device_memory_bytes=plan.device.memory_bytes,
        unquantised=plan.unquantised,
        findings=[message_of(pb.Finding, finding) for finding in plan.findings],
        previews=[
            pb.Preview(line=one.line, pieces=[pb.Piece(**asdict(piece)) for piece in one.pieces])
            for one in plan.previews
        ],
    )
    if given is not None:
        reply.counts.CopyFrom(
            message_of(
                pb.DataCounts,
                given,
                examples=len(given.lengths),
                longest_example_tokens=max(given.lengths, default=0),
                padding_tokens=plan.padding,
            )
        )
    if plan.rate is not None:
        reply.tokens_per_second = plan.rate.tokens_per_second
        reply.measured_runs = plan.rate.runs
    if plan.seconds is not None:
        duration = Duration()
        duration.FromTimedelta(timedelta(seconds=plan.seconds))
        reply.duration.CopyFrom(duration)
    return reply
