"""Between the contract's messages and the trainer's own types."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof_trainer.progress import Step
from tuneproof_trainer.record import State
from tuneproof_trainer.runbook import RunView
from tuneproof_trainer.spec import Method, RunSpec, Schedule

_METHODS = {
    pb.METHOD_UNSPECIFIED: Method.QLORA_NF4,
    pb.METHOD_QLORA_NF4: Method.QLORA_NF4,
    pb.METHOD_LORA: Method.LORA,
}
_SCHEDULES = {
    pb.SCHEDULE_UNSPECIFIED: Schedule.CONSTANT,
    pb.SCHEDULE_CONSTANT: Schedule.CONSTANT,
    pb.SCHEDULE_LINEAR: Schedule.LINEAR,
    pb.SCHEDULE_COSINE: Schedule.COSINE,
}
_STATES = {
    State.QUEUED: pb.RUN_STATE_QUEUED,
    State.RUNNING: pb.RUN_STATE_RUNNING,
    State.SUCCEEDED: pb.RUN_STATE_SUCCEEDED,
    State.FAILED: pb.RUN_STATE_FAILED,
    State.CANCELLED: pb.RUN_STATE_CANCELLED,
}
_METHOD_NUMBERS = {method: number for number, method in _METHODS.items() if number}
_SCHEDULE_NUMBERS = {schedule: number for number, schedule in _SCHEDULES.items() if number}


def spec_from(message: pb.RunSpec) -> RunSpec:
    """The spec that a message asks for, defaults not filled in.

    Raises:
        InvalidInput: for a method or schedule that this version does not know.
    """
    if message.method not in _METHODS or message.schedule not in _SCHEDULES:
        raise InvalidInput(
            f"method {message.method} or schedule {message.schedule} is not known here; "
            "take a value of trainer.proto",
            field="spec.method",
        )
    warmup = {"warmup_ratio": message.warmup_ratio} if message.HasField("warmup_ratio") else {}
    return RunSpec(
        base_model=message.base_model,
        data_path=message.data.path,
        data_digest=message.data.digest,
        adapter_name=message.adapter_name,
        method=_METHODS[message.method],
        rank=message.lora.rank,
        alpha=message.lora.alpha,
        dropout=message.lora.dropout,
        target_modules=tuple(message.lora.target_modules),
        skip_modules=tuple(message.quantization.skip_modules),
        epochs=message.epochs,
        max_steps=message.max_steps,
        effective_batch_size=message.effective_batch_size,
        micro_batch_size=message.micro_batch_size,
        learning_rate=message.learning_rate,
        schedule=_SCHEDULES[message.schedule],
        max_grad_norm=message.max_grad_norm,
        max_length=message.max_length,
        seed=message.seed,
        gradient_checkpointing=message.gradient_checkpointing,
        **warmup,
    )


def spec_to(spec: RunSpec) -> pb.RunSpec:
    """The message for a spec."""
    return pb.RunSpec(
        base_model=spec.base_model,
        data=pb.TrainingData(path=spec.data_path, digest=spec.data_digest),
        adapter_name=spec.adapter_name,
        method=_METHOD_NUMBERS[spec.method],
        lora=pb.LoraConfig(
            rank=spec.rank,
            alpha=spec.alpha,
            dropout=spec.dropout,
            target_modules=spec.target_modules,
        ),
        quantization=pb.Quantization(skip_modules=spec.skip_modules),
        epochs=spec.epochs,
        max_steps=spec.max_steps,
        effective_batch_size=spec.effective_batch_size,
        micro_batch_size=spec.micro_batch_size,
        learning_rate=spec.learning_rate,
        schedule=_SCHEDULE_NUMBERS[spec.schedule],
        warmup_ratio=spec.warmup_ratio,
        max_grad_norm=spec.max_grad_norm,
        max_length=spec.max_length,
        seed=spec.seed,
        gradient_checkpointing=spec.gradient_checkpointing,
    )


def run_to(view: RunView) -> pb.Run:
    """The message for a run."""
    state = view.state
    run = pb.Run(
        id=state.id,
        spec=spec_to(view.spec),
        state=_STATES[state.state],
        reason=state.reason,
        adapter_ref=state.adapter_ref,
        losses=[pb.LossPoint(step=step.step, loss=step.loss) for step in view.losses],
        create_time=_timestamp(state.create_time),
        provenance=state.provenance,
    )
    if view.progress:
        run.progress.CopyFrom(_progress_to(view.progress))
    if state.start_time:
        run.start_time.CopyFrom(_timestamp(state.start_time))
    if state.end_time:
        run.end_time.CopyFrom(_timestamp(state.end_time))
    return run


def _progress_to(step: Step) -> pb.Progress:
    eta = Duration()
    eta.FromNanoseconds(round(step.eta * 1e9))
    return pb.Progress(
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
