"""Between the contract's messages and the domain's values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tuneproof.adapters import AdapterRef
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.engine.protocol import Finish, Message, Sampling
from tuneproof_generator.engine.residency import Residency
from tuneproof_generator.generation import Chat, GenerationOutcome, GenerationRequest, Piece, Tokens
from tuneproof_generator.pool.alias import Alias, Target
from tuneproof_generator.pool.changes import AdapterView

_DEFAULT_MAX_TOKENS = 256
_ROLES = {
    pb.ROLE_SYSTEM: "system",
    pb.ROLE_USER: "user",
    pb.ROLE_ASSISTANT: "assistant",
}
_FINISH = {
    Finish.STOP: pb.FINISH_REASON_STOP,
    Finish.LENGTH: pb.FINISH_REASON_LENGTH,
}
_STATES = {
    AdapterState.PENDING: pb.ADAPTER_STATE_PENDING,
    AdapterState.FETCHING: pb.ADAPTER_STATE_FETCHING,
    AdapterState.VERIFYING: pb.ADAPTER_STATE_VERIFYING,
    AdapterState.LOADING: pb.ADAPTER_STATE_LOADING,
    AdapterState.READY: pb.ADAPTER_STATE_READY,
    AdapterState.DRAINING: pb.ADAPTER_STATE_DRAINING,
    AdapterState.FAILED: pb.ADAPTER_STATE_FAILED,
}

_RESIDENCIES = {
    Residency.UNKNOWN: pb.RESIDENCY_UNSPECIFIED,
    Residency.NONE: pb.RESIDENCY_NONE,
    Residency.HOST: pb.RESIDENCY_HOST,
    Residency.SLOT: pb.RESIDENCY_SLOT,
}


def request_of(request: pb.GenerateRequest) -> GenerationRequest:
    """A request's content, with the contract's defaults.

    Raises:
        InvalidInput: when there is no prompt.
    """
    sampling = request.sampling
    chosen = Sampling(
        max_tokens=sampling.max_tokens or _DEFAULT_MAX_TOKENS,
        temperature=sampling.temperature,
        top_p=sampling.top_p if sampling.HasField("top_p") else 1.0,
        seed=sampling.seed if sampling.HasField("seed") else None,
        stop=tuple(sampling.stop),
    )
    match request.WhichOneof("prompt"):
        case "chat":
            chat = tuple(
                Message(_ROLES.get(message.role, ""), message.content)
                for message in request.chat.messages
            )
            return GenerationRequest(request.model, Chat(chat), chosen)
        case "text":
            return GenerationRequest(request.model, request.text, chosen)
        case "token_ids":
            return GenerationRequest(request.model, Tokens(tuple(request.token_ids.ids)), chosen)
        case _:
            raise InvalidInput(
                "the request has no prompt; set chat, text or token_ids", field="prompt"
            )


def delta_of(piece: Piece) -> pb.Delta | None:
    """A part of an answer; None when it is empty."""
    if not (piece.text or piece.token_ids):
        return None
    return pb.Delta(text=piece.text, token_ids=piece.token_ids)


def final_of(
    outcome: GenerationOutcome, *, base_model: str, replica: str, with_prompt_ids: bool
) -> pb.Final:
    """The end of an answer."""
    final = pb.Final(
        finish_reason=_FINISH[outcome.finish],
        usage=pb.Usage(
            prompt_tokens=len(outcome.prompt_ids),
            completion_tokens=outcome.completion_tokens,
            cached_tokens=outcome.cached_tokens,
        ),
        served_by=pb.ServedBy(
            base_model=base_model, adapter_ref=outcome.adapter_ref, replica=replica
        ),
        prompt_token_ids=outcome.prompt_ids if with_prompt_ids else (),
    )
    _fill_stages(final.stage_times, outcome.stage_seconds)
    return final


def adapter_of(view: AdapterView, residency: Residency = Residency.UNKNOWN) -> pb.Adapter:
    """An adapter on this replica, and its state on all."""
    record = view.record
    message = pb.Adapter(
        ref=record.ref,
        state=_STATES[record.state],
        reason=record.reason,
        required=record.required,
        rank=record.rank,
        size_bytes=record.size_bytes,
        aliases=view.aliases,
        running_requests=view.usage.running,
        residency=_RESIDENCIES[residency],
    )
    if view.usage.last_used is not None:
        message.last_used_time.FromDatetime(view.usage.last_used)
    for transition in record.transitions:
        step = message.transitions.add(state=_STATES[transition.state], reason=transition.reason)
        step.time.FromDatetime(transition.time)
    _fill_stages(message.stage_times, record.stage_seconds)
    for each in view.replicas:
        status = message.replicas.add(
            replica=each.replica, state=_STATES[each.status.state], reason=each.status.reason
        )
        status.lease_expire_time.FromDatetime(each.lease_end)
    return message


def target_of(request: pb.SetAliasRequest) -> Target:
    """Where a request asks an alias to point.

    Raises:
        InvalidInput: for a malformed reference, or a percentage that does not fit.
    """
    ref, canary = (
        AdapterRef.parse(text) if text else None for text in (request.ref, request.canary_ref)
    )
    return Target(ref, canary, request.canary_percent)


def alias_of(alias: Alias) -> pb.Alias:
    """Where an alias points."""
    message = pb.Alias(
        name=alias.name,
        ref=alias.ref,
        version=alias.version,
        reason=alias.reason,
        set_by=alias.set_by,
        canary_ref=alias.canary_ref,
        canary_percent=alias.canary_percent,
    )
    message.set_time.FromDatetime(alias.time)
    return message


def _fill_stages(field: Any, seconds: Mapping[str, float]) -> None:
    for stage, duration in seconds.items():
        field.add(stage=stage).duration.FromTimedelta(timedelta(seconds=max(duration, 0.0)))
