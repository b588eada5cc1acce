"""The generator's messages as values, and back."""

from __future__ import annotations

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.sdk.conversions import seconds_of
from tuneproof.sdk.pools import AdapterInfo, ReplicaInfo
from tuneproof.sdk.values import GenerateInput, Generation
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.messages import message_of, value_from, value_of, values_of, word_of


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
    return message_of(pb.GenerateRequest, one, chat=chat)


def generation(text: str, final: pb.Final) -> Generation:
    """An answer and what was said of it."""
    return Generation(
        text=text,
        finish_reason=word_of(pb.FinishReason, final.finish_reason),
        stage_seconds=seconds_of(final.stage_times),
        **values_of(final.usage),
        **values_of(final.served_by),
    )


def adapter(message: pb.Adapter) -> AdapterInfo:
    """An adapter of a pool."""
    return value_from(
        AdapterInfo,
        message,
        stage_seconds=seconds_of(message.stage_times),
        replicas={each.replica: value_from(ReplicaInfo, each) for each in message.replicas},
    )
