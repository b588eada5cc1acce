"""What a model reads in training is what it reads in serving, token by token."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from tuneproof.data import telecom
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc
from tuneproof.prompts import Pair, chat, rag_messages
from tuneproof.servicekit.client import connect
from tuneproof_trainer.data import parse_examples
from tuneproof_trainer.worker.tokens import tokenise

from ..conftest import ROOT, Running

_ROLES = {"user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


async def test_prompt_ids_of_training_and_serving_are_equal(running: Running) -> None:
    world = telecom.generate(seed=3, documents=6)
    prompts = [
        rag_messages(item.question, telecom.oracle_context(world, item, 6, seed=1))
        for item in world.items[:20]
    ]
    prompts.append(rag_messages("Wörter, die er nie sah: 漢字 🙂?", ["Ein  Absatz\n\n[2] nicht."]))
    shown = [
        Pair(item.question, item.references["full"][0], (item.gold_texts[0], "A distractor."))
        for item in world.items[20:23]
    ]
    prompts.append(chat("What?", ["One passage."], examples=shown))
    prompts.append(chat("What?", None, examples=[Pair("Who?", "She.", None)]))
    lines = [
        json.dumps({"messages": [*prompt, {"role": "assistant", "content": "46 dBm."}]})
        for prompt in prompts
    ]
    examples = parse_examples("\n".join(lines).encode(), "data.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "demo" / "telecom-reader")
    trained = tokenise(tokenizer, examples, max_length=2048, path="data.jsonl")

    service = pb.DESCRIPTOR.services_by_name["GeneratorService"]
    async with connect(running.addresses["generator"]["grpc"], services=[service]) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        for prompt, sequences in zip(prompts, trained, strict=True):
            messages = [
                pb.Message(role=_ROLES[message["role"]], content=message["content"])
                for message in prompt
            ]
            request = pb.GenerateRequest(
                chat=pb.Chat(messages=messages),
                sampling=pb.Sampling(max_tokens=1),
                return_prompt_token_ids=True,
            )
            replies = [reply async for reply in stub.Generate(request, timeout=60)]
            served = tuple(replies[-1].final.prompt_token_ids)
            assert served == sequences.input_ids[: sequences.prompt_length]
