"""The trainer's messages as values, and back."""

from __future__ import annotations

from tuneproof.sdk.conversions import time_of, value_of, word_of
from tuneproof.sdk.runs import RunInfo, RunProgress, RunSpec
from tuneproof.trainer.v1 import trainer_pb2 as pb


def spec_message(spec: RunSpec) -> pb.RunSpec:
    """The message of a spec.

    Raises:
        InvalidInput: for a method or a schedule that is not known.
    """
    return pb.RunSpec(
        base_model=spec.base_model,
        data=pb.TrainingData(path=spec.data_path, digest=spec.data_digest),
        adapter_name=spec.adapter_name,
        method=value_of(pb.Method, spec.method, "METHOD"),
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
        schedule=value_of(pb.Schedule, spec.schedule, "SCHEDULE"),
        warmup_ratio=spec.warmup_ratio,
        max_grad_norm=spec.max_grad_norm,
        max_length=spec.max_length,
        seed=spec.seed,
        gradient_checkpointing=spec.gradient_checkpointing,
    )


def spec_of(message: pb.RunSpec) -> RunSpec:
    """The spec of a message."""
    return RunSpec(
        adapter_name=message.adapter_name,
        data_path=message.data.path,
        data_digest=message.data.digest,
        base_model=message.base_model,
        method=word_of(pb.Method, message.method, "METHOD"),
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
        schedule=word_of(pb.Schedule, message.schedule, "SCHEDULE"),
        warmup_ratio=message.warmup_ratio if message.HasField("warmup_ratio") else None,
        max_grad_norm=message.max_grad_norm,
        max_length=message.max_length,
        seed=message.seed,
        gradient_checkpointing=message.gradient_checkpointing,
    )


def run_of(message: pb.Run) -> RunInfo:
    """The run of a message."""
    progress = message.progress
    return RunInfo(
        id=message.id,
        spec=spec_of(message.spec),
        state=word_of(pb.RunState, message.state, "RUN_STATE"),
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
