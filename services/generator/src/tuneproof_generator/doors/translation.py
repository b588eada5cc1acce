"""Between the contract's messages and the domain's values."""

from __future__ import annotations

from tuneproof.adapters import AdapterRef
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.messages import message_of, values_of
from tuneproof_generator.engine.protocol import Message, Sampling
from tuneproof_generator.engine.residency import Residency
from tuneproof_generator.generation import Chat, GenerationOutcome, GenerationRequest, Piece, Tokens
from tuneproof_generator.pool.alias import Alias, Target
from tuneproof_generator.pool.changes import AdapterView

_DEFAULT_MAX_TOKENS = 256


def request_of(request: pb.GenerateRequest) -> GenerationRequest:
    """A request's content, with the contract's defaults.

    Raises:
        InvalidInput: when there is no prompt, or a role is unknown.
    """
    given = values_of(request.sampling)
    chosen = Sampling(**given | {"max_tokens": given["max_tokens"] or _DEFAULT_MAX_TOKENS})
    match request.WhichOneof("prompt"):
        case "chat":
            turns = (values_of(message) for message in request.chat.messages)
            chat = tuple(Message(turn.get("role", ""), turn["content"]) for turn in turns)
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
    return message_of(
        pb.Final,
        finish_reason=outcome.finish,
        usage=pb.Usage(
            prompt_tokens=len(outcome.prompt_ids),
            completion_tokens=outcome.completion_tokens,
            cached_tokens=outcome.cached_tokens,
        ),
        served_by=pb.ServedBy(
            base_model=base_model, adapter_ref=outcome.adapter_ref, replica=replica
        ),
        stage_times=outcome.stage_seconds,
        prompt_token_ids=outcome.prompt_ids if with_prompt_ids else (),
    )


def adapter_of(view: AdapterView, residency: Residency = Residency.UNKNOWN) -> pb.Adapter:
    """An adapter on this replica, and its state on all."""
    return message_of(
        pb.Adapter,
        view.record,
        aliases=view.aliases,
        running_requests=view.usage.running,
        last_used_time=view.usage.last_used,
        residency=None if residency is Residency.UNKNOWN else residency,
        stage_times=view.record.stage_seconds,
        replicas=[
            message_of(
                pb.ReplicaStatus,
                each.status,
                replica=each.replica,
                lease_expire_time=each.lease_end,
            )
            for each in view.replicas
        ],
    )


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
    return message_of(pb.Alias, alias, set_time=alias.time)
