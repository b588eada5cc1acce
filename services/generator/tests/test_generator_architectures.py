"""Mistral and Mixtral, the same way as the Llama: registry, declaration, real engine."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuneproof.adapters import Registry, identify_base, read_base_config, verify
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as rpc
from tuneproof.servicekit.client import connect

pytestmark = pytest.mark.timeout(360)

_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
_QUESTIONS = [f"what is the {thing}?" for thing in ("mast", "relay", "antenna", "cable")]
_QUESTIONS += [
    f"where was the {thing} in those days?" for thing in ("mast", "relay", "cable", "ox")
]
_TOKENS = 24


def _config(kind: str, vocabulary: int):
    from transformers import MistralConfig, MixtralConfig

    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    if kind == "mistral":
        return MistralConfig(**shape, sliding_window=32)
    return MixtralConfig(**shape, num_local_experts=4, num_experts_per_tok=2, sliding_window=None)


def _make_base(kind: str, folder: Path, tokenizer) -> Path:
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    AutoModelForCausalLM.from_config(_config(kind, len(tokenizer))).save_pretrained(folder)
    return folder


def _adapter(base: Path, folder: Path, seed: int, targets):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=8, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(seed)
    for name, weights in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weights, std=0.15)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["mistral", "mixtral"])
def served(request, make_generator, tokenizer, tmp_path_factory):
    """A base and two adapters of it, made and committed, and a service for them."""
    kind, root = request.param, tmp_path_factory.mktemp(request.param)
    base, artifacts = _make_base(kind, root / "base", tokenizer), root / "artifacts"
    targets = "all-linear" if kind == "mistral" else _ATTENTION
    peft, refs = {}, {}
    for seed, name in enumerate(["one", "two"]):
        peft[name] = _adapter(base, root / name, seed, targets)
        committed = Registry(str(artifacts)).commit(
            peft[name], name=name, base=identify_base(base), provenance={}
        )
        refs[name] = str(committed)
    running = make_generator(root=root, base=base, peft=peft, refs=refs)
    running.start()
    yield SimpleNamespace(running=running, base=base, peft=peft, refs=refs)
    assert running.end(signal.SIGTERM) == 0


def _expected(served, name, prompt):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(served.base)
    if name:
        model = PeftModel.from_pretrained(model, served.peft[name])
    ids = torch.tensor([prompt])
    with torch.no_grad():
        answer = model.eval().generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=_TOKENS,
            do_sample=False,
        )
    return answer[0, len(prompt) :].tolist()


@pytest.mark.engine
async def test_tokens_equal_those_of_transformers_and_peft(served) -> None:
    running = served.running
    services = list(pb.DESCRIPTOR.services_by_name.values())
    async with connect(running.target, services=services, token=running.manage_token) as channel:
        adapters = rpc.AdapterServiceStub(channel)
        for ref in served.refs.values():
            await adapters.DeclareAdapter(pb.DeclareAdapterRequest(ref=ref), timeout=30)
        waited = [ref async for ref in _ready(adapters, set(served.refs.values()))]
        assert sorted(waited) == sorted(served.refs.values())
        ask = rpc.GeneratorServiceStub(channel)
        answers = {}
        for name in ("", "one", "two"):
            for question in _QUESTIONS:
                prompt, ids = await _answer(ask, served.refs.get(name, ""), question)
                assert ids == _expected(served, name, prompt), (name, question)
                answers.setdefault(question, set()).add(tuple(ids))
    assert all(len(different) == 3 for different in answers.values())


async def _ready(adapters, refs):
    async for event in adapters.WatchAdapters(pb.WatchAdaptersRequest(refs=refs), timeout=60):
        adapter = event.adapter
        assert adapter.state != pb.ADAPTER_STATE_FAILED, adapter
        if adapter.state == pb.ADAPTER_STATE_READY:
            yield adapter.ref
            refs.discard(adapter.ref)
        if not refs:
            return


async def _answer(ask, model, question):
    ids = []
    request = pb.GenerateRequest(
        model=model,
        chat=pb.Chat(messages=[pb.Message(role=pb.ROLE_USER, content=question)]),
        sampling=pb.Sampling(max_tokens=_TOKENS),
        return_prompt_token_ids=True,
    )
    async for response in ask.Generate(request, timeout=60):
        ids += response.delta.token_ids
    return list(response.final.prompt_token_ids), ids


@pytest.mark.parametrize(
    ("made_for", "targets", "defect"),
    [
        ("mixtral", _ATTENTION, None),
        ("mixtral", "all-linear", "name the linear layers in target_modules"),
        ("mistral", ["gate_proj"], "mlp.gate_proj is not a linear layer of a mixtral model"),
    ],
)
def test_adapters_of_experts_are_refused(made_for, targets, defect, tokenizer, tmp_path) -> None:
    base = _make_base("mixtral", tmp_path / "mixtral", tokenizer)
    if made_for != "mixtral":
        _make_base(made_for, tmp_path / made_for, tokenizer)
    folder = _adapter(tmp_path / made_for, tmp_path / "adapter", 3, targets)
    report = verify(folder, base_config=read_base_config(base), max_rank=8)
    said = "; ".join(found.message for found in report.defects)
    assert defect in said if defect else not said, said
