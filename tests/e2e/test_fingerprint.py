"""What was trained is what is served, or the adapter FAILED with the reason: on a real engine.

vLLM 0.32 answers with the base, or with a part of the adapter, and says nothing (vllm-project/vllm
issues 34186 and 55193). The adapters are not tuned but drawn; their fingerprints are taken by the
trainer's own code.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tuneproof.adapters import Fingerprint, Registry, identify_base
from tuneproof.adapters.fingerprint import FINGERPRINT
from tuneproof.adapters.hyperparameters import Hyperparameters

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")
_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SCRIPT = Path(__file__).with_name("fingerprint_engine.py")


def _make_base(folder: Path) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|pad|>", "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<|pad|>",
        bos_token="<|begin|>",
        eos_token="<|end|>",
        additional_special_tokens=special[3:],
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
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@dataclass
class Bench:
    """Makes adapters of a base, and commits them with what is said of them."""

    root: Path
    base: Path

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def draw(
        self,
        name: str,
        modules: tuple[str, ...] = _ATTENTION,
        *,
        base: Path | None = None,
        method: str = "lora",
        spread: float = 0.1,
    ) -> tuple[Path, Fingerprint]:
        """An adapter as peft saves it, and its fingerprint as the trainer takes it."""
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoTokenizer

        from tuneproof_trainer.worker.base_model import load_base
        from tuneproof_trainer.worker.fingerprint import take_fingerprint

        base = base or self.base
        loaded = load_base(base, Hyperparameters(method=method), "cpu")
        config = LoraConfig(
            r=4, lora_alpha=8, target_modules=list(modules), task_type="CAUSAL_LM", lora_dropout=0.2
        )
        model = get_peft_model(loaded.model, config)
        torch.manual_seed(len(name))
        for key, weights in model.named_parameters():
            if "lora_A" in key or ("lora_B" in key and spread):
                torch.nn.init.normal_(weights, std=spread or 0.1)
        folder = self.root / "peft" / name
        model.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(base)
        return folder, take_fingerprint(loaded, tokenizer, base, folder)

    def commit(
        self,
        name: str,
        folder: Path,
        fingerprint: Fingerprint | str | None,
        *,
        base: Path | None = None,
    ) -> str:
        """Its reference; it claims to be of the served base unless another is named."""
        details: dict[str, Any] = {"base_precision": "float32"}
        if fingerprint is not None:
            told = fingerprint if isinstance(fingerprint, str) else fingerprint.to_text()
            details[FINGERPRINT] = told
        identity = identify_base(base or self.base)
        registry = Registry(str(self.artifacts))
        return str(registry.commit(folder, name=name, base=identity, provenance=details))

    def changed(
        self, name: str, folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]
    ) -> Path:
        """A copy of an adapter with other tensors or another configuration."""
        copy = shutil.copytree(folder, self.root / "peft" / name)
        tensors, config = load_file(copy / _WEIGHTS), json.loads((copy / _CONFIG).read_text())
        change(tensors, config)
        save_file(tensors, copy / _WEIGHTS)
        (copy / _CONFIG).write_text(json.dumps(config))
        return copy

    def other_base(self, name: str, change: Callable[[Path], None]) -> Path:
        """A copy of the base with something else in it."""
        copy = shutil.copytree(self.base, self.root / name)
        change(copy)
        return copy


def _rename(part: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Puts the modules whose names hold `part` under a prefix that the base lacks."""

    def change(tensors: dict[str, Any], _: dict[str, Any]) -> None:
        for name in [name for name in tensors if part in name]:
            new = name.replace(".model.layers.", ".language_model.layers.")
            tensors[new] = tensors.pop(name)

    return change


def _double(_: dict[str, Any], config: dict[str, Any]) -> None:
    config["lora_alpha"] *= 2


def _noise(folder: Path) -> None:
    """The next revision of a base: the same configuration, weights that are 2 % others."""
    import torch

    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(1)
    for each in weights.values():
        each.add_(torch.randn_like(each), alpha=0.02 * float(each.std()))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _retell(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(_TEMPLATE.replace("<|end|>", ""))


READY, FAILED = "READY", "FAILED"
HONEST = ("over nf4", "over float32", "of another tool", "nothing, allowed")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """State, reason and comparison of every case, by one engine."""
    root = tmp_path_factory.mktemp("fingerprint")
    bench = Bench(root, _make_base(root / "base"))
    good, found = bench.draw("good")
    foreign, _ = bench.draw("foreign")
    damaged, _ = bench.draw("damaged one")
    quantised, of_nf4 = bench.draw("quantised", method="qlora_nf4")
    assert [each.precision for each in of_nf4.readings] == ["nf4", "float32"]
    wrong = bench.changed("wrong-prefix", good, _rename("layers."))
    wide, of_wide = bench.draw("wide", (*_ATTENTION, *_MLP))
    mlp, of_mlp = bench.draw("mlp", _MLP)
    zero, of_zero = bench.draw("zero", spread=0.0)
    newer = bench.other_base("newer", _noise)
    moved, of_newer = bench.draw("newer", base=newer)
    retold = bench.other_base("retold", _retell)
    spoken, of_retold = bench.draw("retold", base=retold)
    refs = {
        "over nf4": (bench.commit("nf4", quantised, of_nf4), False),
        "over float32": (bench.commit("float", good, found), False),
        "of another tool": (bench.commit("foreign", foreign, None), False),
        "nothing": (bench.commit("zero", zero, of_zero), False),
        "nothing, allowed": (bench.commit("zero-allowed", zero, of_zero), True),
        "wrong prefix": (bench.commit("prefix", wrong, found), False),
        "wrong prefix, of another tool": (bench.commit("prefix-foreign", wrong, None), False),
        "wrong prefix in one layer": (
            bench.commit("layer", bench.changed("one-layer", good, _rename("layers.1.")), found),
            False,
        ),
        "untargeted modules": (bench.commit("wide", wide, of_wide), False),
        "untargeted modules only": (bench.commit("mlp", mlp, of_mlp), False),
        "doubled scale": (
            bench.commit("scale", bench.changed("doubled", good, _double), found),
            False,
        ),
        "another base revision": (bench.commit("newer", moved, of_newer), False),
        "another template": (bench.commit("retold", spoken, of_retold), False),
        "another template, told": (
            bench.commit("retold-told", spoken, of_retold, base=retold),
            False,
        ),
        "damaged fingerprint": (bench.commit("damaged", damaged, '{"version": 1}'), False),
    }
    (root / "files").mkdir()
    order = {
        "base": str(bench.base),
        "artifacts": str(bench.artifacts),
        "files": str(root / "files"),
        "refs": refs,
    }
    done = subprocess.run(
        [sys.executable, str(_SCRIPT), json.dumps(order)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == len(refs), done.stderr[-4000:]
    return {line["case"]: line for line in lines}


@pytest.mark.parametrize("case", HONEST)
def test_an_honest_adapter_is_ready(told: dict[str, dict[str, str]], case: str) -> None:
    assert told[case]["state"] == READY, told[case]["reason"]
    assert "nat a token" in told[case]["fingerprint"]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("nothing", "every product of its matrices is zero"),
        ("wrong prefix", "no effect: the engine answers as the base does"),
        ("wrong prefix, of another tool", "no effect: the engine answers as the base does"),
        ("wrong prefix in one layer", "another effect: the adapter moves"),
        ("untargeted modules", "another effect: the adapter moves"),
        ("untargeted modules only", "no effect: the engine answers as the base does"),
        ("doubled scale", "another effect: the adapter moves"),
        ("another base revision", "another base: without the adapter"),
        ("another template", "another chat template or tokenizer: 'Is water wet?' is"),
        ("another template, told", "the chat template at training was"),
        ("damaged fingerprint", "the fingerprint cannot be read: probes"),
    ],
)
def test_what_is_not_as_in_training_fails_and_says_why(
    told: dict[str, dict[str, str]], case: str, reason: str
) -> None:
    assert told[case]["state"] == FAILED, told[case]["fingerprint"]
    assert reason in told[case]["reason"]
