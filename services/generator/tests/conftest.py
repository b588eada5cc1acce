"""A tiny random Llama with adapters, and a generator that serves them in a process of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tuneproof.adapters import Registry, identify_base
from tuneproof.servicekit.trace_testing import Collector, collecting

from .perilous import Faults, Replica, VirtualLoop

_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ("<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_START_SECONDS = 240.0


@dataclass(frozen=True)
class Lab:
    """A base model and an artifact store with adapters."""

    root: Path
    base: Path
    peft: dict[str, Path]
    """Folders as peft wrote them, by name."""
    refs: dict[str, str]

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    root = tmp_path_factory.mktemp("lab")
    base = _make_base(root / "base")
    made = Lab(root, base, {}, {})
    for seed, (name, rank) in enumerate(
        [
            ("one", 8),
            ("two", 4),
            ("late", 8),
            ("brief", 8),
            ("nan", 8),
            ("wide", 32),
            ("flipped", 8),
        ]
    ):
        made.peft[name] = _make_adapter(base, root / "peft" / name, seed=seed, rank=rank)
        if name == "nan":
            _spoil(made.peft[name])
        ref = Registry(str(made.artifacts)).commit(
            made.peft[name], name=name, base=identify_base(base), provenance={}
        )
        made.refs[name] = str(ref)
    weights = next((made.artifacts / "adapters" / "flipped").glob("*/adapter_model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    return made


def _make_base(folder: Path) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    # Every byte is a token, so that every text can be asked and JSON can be answered.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*_SPECIAL, *alphabet])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=_SPECIAL[0],
        bos_token=_SPECIAL[1],
        eos_token=_SPECIAL[2],
        additional_special_tokens=list(_SPECIAL[3:]),
    )
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _make_adapter(base: Path, folder: Path, *, seed: int, rank: int) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=list(_LINEAR), task_type="CAUSAL_LM"
    )
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    torch.manual_seed(100 + seed)
    for name, weights in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weights, std=0.15)
    model.save_pretrained(folder)
    return folder


def _spoil(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, folder / "adapter_model.safetensors")


@dataclass
class GeneratorProcess:
    """The service as operators start it, with tokens."""

    use_token = "token-that-may-use"
    manage_token = "token-that-may-manage"

    lab: Lab
    otlp_endpoint: str
    replica: str = "replica-0"
    folder: Path | None = None
    """Where it keeps its files; the lab's root if not said."""
    artifacts: str = ""
    """The lab's artifact store if not said."""
    environment: dict[str, str] = field(default_factory=dict)
    flags: dict[str, object] = field(default_factory=dict)
    """More than the usual ones, or other values."""
    addresses: dict[str, str | int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        return str(self.addresses["grpc"])

    @property
    def openai_url(self) -> str:
        return str(self.addresses["openai"])

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        self.launch()
        self.wait()

    @property
    def log(self) -> Path:
        return (self.folder or self.lab.root) / "generator.log"

    @property
    def announce(self) -> Path:
        return (self.folder or self.lab.root) / "announce.json"

    def launch(self) -> None:
        folder = self.folder or self.lab.root
        folder.mkdir(exist_ok=True)
        self.announce.unlink(missing_ok=True)
        tokens = folder / "tokens"
        tokens.write_text(f"use {self.use_token}\nmanage {self.manage_token}\n")
        log = self.log.open("ab")
        flags = {
            "model": self.lab.base,
            "model-name": "tiny",
            "artifacts": self.artifacts or self.lab.artifacts,
            "cache-dir": folder / "cache",
            "announce-file": self.announce,
            "tokens-file": tokens,
            "replica": self.replica,
            "lease-seconds": 4,
            "threads": 1,
            "cpu-cache-mib": 64,
            "max-loras": 2,
            "max-cpu-loras": 4,
            "reconcile-seconds": 0.5,
            "stream-interval": 3,
        }
        arguments = [f"--{name}={value}" for name, value in (flags | self.flags).items()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tuneproof_generator", *arguments],
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "OTEL_EXPORTER_OTLP_ENDPOINT": self.otlp_endpoint,
                "OTEL_BSP_SCHEDULE_DELAY": "100",
                **self.environment,
            },
        )

    def wait(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + _START_SECONDS
        while not self.announce.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                pytest.fail(f"no start: {self.log.read_text()[-4000:]}")
            time.sleep(0.1)
        self.addresses = json.loads(self.announce.read_text())

    def children(self) -> set[int]:
        """The processes of the engine."""
        found: set[int] = set()
        waiting = [self.pid]
        while waiting:
            parent = waiting.pop()
            for task in Path(f"/proc/{parent}/task").glob("*/children"):
                below = [int(child) for child in task.read_text().split()]
                found.update(below)
                waiting += below
        return found

    def end(self, how: signal.Signals) -> int:
        """Ends the service; its exit code, once all its processes are gone."""
        assert self.process is not None
        children = self.children()
        self.process.send_signal(how)
        code = self.process.wait(30)
        deadline = time.monotonic() + 20
        while left := {child for child in children if _is_alive(child)}:
            if time.monotonic() > deadline:
                for child in left:
                    os.kill(child, signal.SIGKILL)
                pytest.fail(f"processes {left} outlived the service")
            time.sleep(0.1)
        return code


def _is_alive(process: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with collecting() as kept:
        yield kept


@pytest.fixture(scope="session")
def generator(lab: Lab, collector: Collector) -> Iterator[GeneratorProcess]:
    running = GeneratorProcess(lab, collector.endpoint)
    running.start()
    try:
        yield running
    finally:
        if running.process is not None and running.process.poll() is None:
            code = running.end(signal.SIGTERM)
            assert code == 0


@pytest.fixture(scope="session")
def make_generator(collector: Collector):
    """Of a lab's fields: the service for another base model, not started yet."""
    return lambda **fields: GeneratorProcess(Lab(**fields), collector.endpoint)


@pytest.fixture(scope="session")
def reference(lab: Lab):
    """Greedy tokens of transformers and peft, in float32: (adapter or None, prompt ids, count)."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    models = {None: AutoModelForCausalLM.from_pretrained(lab.base).eval()}
    for name in ("one", "two", "late", "brief"):
        base = AutoModelForCausalLM.from_pretrained(lab.base)
        models[name] = PeftModel.from_pretrained(base, lab.peft[name]).eval()

    def greedy(name, prompt, count):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            answer = models[name].generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                do_sample=False,
            )
        return answer[0, len(prompt) :].tolist()

    return greedy


@pytest.fixture(scope="session")
def tokenizer(lab: Lab):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(lab.base)


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    """A loop whose time is virtual."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        yield runner.get_loop()


@pytest.fixture
def replica(loop: VirtualLoop, tmp_path: Path) -> Iterator[Replica]:
    """A replica in virtual time; at the end its engine has met none of its dangers."""

    async def start() -> Replica:
        made = Replica(tmp_path, Faults(), clock=loop.clock)
        await made.pool.reconciler.reconcile()
        return made

    started = loop.run_until_complete(start())
    yield started
    loop.run_until_complete(started.pool.close())
    assert started.engine.violations == []


@pytest.fixture
def clock():
    """A steady clock that the test moves."""
    from .fleet import MovedClock

    return MovedClock()
