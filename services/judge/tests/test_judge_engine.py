"""The mode `weighted` on a real engine, against the exact expectation from transformers.

The model is trained here, within seconds, to answer a letter with `Score: n`, where n is drawn at
random: so its probabilities are spread over the whole scale.
"""

import asyncio
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuneproof.rubrics import Rubric, RubricShelf
from tuneproof.servicekit.errors import Unavailable
from tuneproof_judge.endpoint import EndpointLimits, OpenAIEndpoint
from tuneproof_judge.grading import Grader
from tuneproof_judge.prompt import Subject
from tuneproof_judge.task import GradeTask

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(240)]

CHARACTERS = "abcdefgh0123456789Score: \n"
SPECIAL = ("<e>", "<u>", "<a>")
TEMPLATE = (
    "{% for one in messages %}{{ '<u>' if one['role'] == 'user' else '<a>' }}{{ one['content'] }}"
    "<e>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
LETTERS = {"five": "abcd", "ten": "efgh"}
SCALES = {"five": range(1, 6), "ten": range(11)}


def train(folder: Path) -> None:
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    symbols = [*SPECIAL, *dict.fromkeys(CHARACTERS)]
    place = {symbol: number for number, symbol in enumerate(symbols)}
    inner = Tokenizer(models.WordLevel(place, unk_token="<e>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<e>",
        pad_token="<e>",
        additional_special_tokens=list(SPECIAL),
        chat_template=TEMPLATE,
    )
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(symbols), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
            bos_token_id=None, eos_token_id=0, pad_token_id=0,
        )
    )  # fmt: skip
    draw = random.Random(3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(250):
        rows = []
        for _ in range(48):
            scale = draw.choice(list(SCALES))
            letter = draw.choice(LETTERS[scale])
            low = draw.choice(SCALES[scale])
            # Each letter has another distribution: the mean of so many draws.
            many = 1 + LETTERS[scale].index(letter)
            score = round(sum([low, *draw.choices(SCALES[scale], k=many - 1)]) / many)
            text = ["<u>", letter, "<e>", "<a>", *f"Score: {score}", "<e>"]
            rows.append([place[each] for each in text] + [0] * (14 - len(text)))
        batch = torch.tensor(rows)
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    train(folder)
    return folder


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {
        "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "VLLM_PLUGINS": "",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1",
        "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
         "--served-model-name", "drawn", "--host", "127.0.0.1", "--port", str(port),
         "--dtype", "float32", "--max-model-len", "128", "--enforce-eager",
         "--no-enable-chunked-prefill", "--max-num-batched-tokens", "512",
         "--max-num-seqs", "8"],
        env={**os.environ, **quiet},
    )  # fmt: skip
    yield f"http://127.0.0.1:{port}/v1"
    server.terminate()
    server.wait(60)


def exact(model: Path, letter: str, scale: range) -> tuple[float, dict[int, float]]:
    """The expectation, by transformers: each score's probability, over the tree of its digits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)

    def after(begun: str) -> dict[str, float]:
        text = f"<u>{letter}<e><a>Score: {begun}"
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            shares = network(input_ids=ids).logits[0, -1].double().softmax(-1)
        symbols = tokenizer.convert_ids_to_tokens(range(len(shares)))
        return dict(zip(symbols, shares.tolist(), strict=True))

    first = after("")
    shares = {score: first[str(score)] for score in scale if score < 10}
    if 10 in scale:
        second = after("1")
        shares[10] = first["1"] * second["0"]
        shares[1] = first["1"] * sum(share for s, share in second.items() if not s.isdigit())
    total = sum(shares.values())
    return sum(score * share for score, share in shares.items()) / total, shares


@pytest.mark.parametrize("name", ["five", "ten"])
async def test_weighted_is_the_exact_expectation(model: Path, url: str, name: str) -> None:
    rubric = Rubric.model_validate(
        {
            "id": "drawn@1", "criterion": "luck", "description": "Whatever.",
            "low": SCALES[name][0], "high": SCALES[name][-1],
            "scale": {SCALES[name][0]: "low", SCALES[name][-1]: "high"}, "steps": ["Draw."],
            "reasoning": "none", "template": "{{answer}}", "max_tokens": 16,
        }
    )  # fmt: skip
    endpoint = OpenAIEndpoint(url, "drawn", "", EndpointLimits(4, 60.0, 3))
    try:
        while True:
            try:
                await endpoint.check_ready()
                break
            except Unavailable:
                await asyncio.sleep(0.5)
        grader = Grader(RubricShelf([rubric]), endpoint)
        for letter in LETTERS[name]:
            task = GradeTask(Subject("Q", letter, ()), ("drawn@1",), mode="weighted")
            (criterion,) = (await grader.grade(task)).criteria
            wanted, shares = exact(model, letter, SCALES[name])
            (repeat,) = criterion.repeats
            assert repeat.weights is not None, repeat.outcome
            told = repeat.weights.probabilities
            assert criterion.mean == pytest.approx(wanted, abs=1e-3)
            assert told == pytest.approx({s: shares[s] for s in told}, abs=1e-3)
            assert sum(share > 0.01 for share in told.values()) >= 4
    finally:
        await endpoint.close()
