"""The generator's messages as values, and back."""

from __future__ import annotations

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.sdk.conversions import seconds_of, time_of
from tuneproof.sdk.pools import AdapterInfo, AliasInfo, PoolInfo, ReplicaInfo, Transition
from tuneproof.sdk.values import GenerateInput, Generation
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.messages import value_of, word_of


def request(one: GenerateInput) -> pb.GenerateRequest:
    """The message of a request.

    Raises:
        InvalidInput: for a message without role or content, or with a role that is not known.
    """
    chat = pb.Chat()
    for number, message in enumerate(one.messages, 1):
        missing = {"role", "content"} - set(message)
        if missing:
            raise InvalidInput(f"message {number} has no {' and no '.join(sorted(missing))}")
        chat.messages.add(role=value_of(pb.Role, message["role"]), content=message["content"])
    sampling = one.sampling
    return pb.GenerateRequest(
        model=one.model,
        chat=chat,
        sampling=pb.Sampling(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            stop=sampling.stop,
        ),
    )


def generation(text: str, final: pb.Final) -> Generation:
    """An answer and what was said of it."""
    return Generation(
        text=text,
        finish_reason=word_of(pb.FinishReason, final.finish_reason),
        prompt_tokens=final.usage.prompt_tokens,
        completion_tokens=final.usage.completion_tokens,
        cached_tokens=final.usage.cached_tokens,
        base_model=final.served_by.base_model,
        adapter_ref=final.served_by.adapter_ref,
        replica=final.served_by.replica,
        stage_seconds=seconds_of(final.stage_times),
    )


def pool(message: pb.Pool) -> PoolInfo:
    """What a replica serves."""
    return PoolInfo(
        base_model=message.base_model,
        config_digest=message.config_digest,
        tokenizer_digest=message.tokenizer_digest,
        chat_template_digest=message.chat_template_digest,
        dtype=message.dtype,
        max_model_len=message.max_model_len,
        max_lora_rank=message.max_lora_rank,
        max_loras=message.max_loras,
        max_cpu_loras=message.max_cpu_loras,
        engine_version=message.engine_version,
        replica=message.replica,
        process_id=message.process_id,
        start_time=time_of(message, "start_time"),
        openai_url=message.openai_url,
        live_replicas=tuple(message.live_replicas),
    )


def adapter(message: pb.Adapter) -> AdapterInfo:
    """An adapter of a pool."""
    return AdapterInfo(
        ref=message.ref,
        state=_state(message.state),
        reason=message.reason,
        required=message.required,
        rank=message.rank,
        size_bytes=message.size_bytes,
        aliases=tuple(message.aliases),
        transitions=tuple(
            Transition(_state(change.state), change.reason, time_of(change, "time"))
            for change in message.transitions
        ),
        stage_seconds=seconds_of(message.stage_times),
        replicas={
            status.replica: ReplicaInfo(
                _state(status.state), status.reason, time_of(status, "lease_expire_time")
            )
            for status in message.replicas
        },
        last_used_time=time_of(message, "last_used_time"),
        running_requests=message.running_requests,
        residency=word_of(pb.Residency, message.residency) if message.residency else "",
    )


def alias(message: pb.Alias) -> AliasInfo:
    """An alias."""
    return AliasInfo(
        name=message.name,
        ref=message.ref,
        version=message.version,
        reason=message.reason,
        set_time=time_of(message, "set_time"),
        set_by=message.set_by,
        canary_ref=message.canary_ref,
        canary_percent=message.canary_percent,
    )


def _state(value: int) -> str:
    return word_of(pb.AdapterState, value)


def _residency(value: int) -> str:
    return word_of(pb.Residency, value) if value else ""
