"""How near an engine comes to an adapter's fingerprint, by precision; and what comparing costs.

    make bench-fingerprint

Adapters of the demo's model are tuned by the trainer's own code, over the NF4 base and over the
unquantised one, for few steps and for many. Each gets readings of its fingerprint over the base in
NF4, in float32 and in bfloat16. Two engines, one in float32 and one in bfloat16, then score the
same tokens, each adapter alone and beside other requests. Standard output has a table for
docs/adapters.md: `base` and `effect` are how far the engine is from the reading, means over tokens
in nats, the worst of the adapters. Below it stands what is not honest: a module that is not
applied, half of them, a doubled scale, other weights under the base. The tolerances in
`tuneproof.adapters.likeness` must lie between the two; the last line, JSON, says whether they do.

`check_ms` is the median time of the comparison at the first load of an adapter, `again_ms` at the
next one, when the comparison is known; `token_ms` is one token, which is what warming was before.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from tuneproof.adapters import Fingerprint, compare
from tuneproof.adapters.fingerprint import Scores
from tuneproof.adapters.hyperparameters import Hyperparameters

ROOT = Path(__file__).parent.parent
BASE = ROOT / "demo" / "telecom-reader"
SKIPPED = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj")
"""As in studies/demo.yaml."""
ADAPTERS = {
    # name: method, style of the references, steps
    "nf4-full": ("qlora_nf4", "full", 39),
    "nf4-short": ("qlora_nf4", "short", 39),
    "nf4-brief": ("qlora_nf4", "full", 3),
    "lora-full": ("lora", "full", 39),
    "lora-brief": ("lora", "short", 3),
}
SERVED = ("float32", "bfloat16")
_PROGRAM = Path(__file__).with_name("fingerprint_engine.py")
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="times that the comparison is timed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = _measure(Path(scratch), options.rounds)
    print(json.dumps({"bench": "fingerprint", "results": results}))


def _measure(root: Path, rounds: int) -> dict[str, Any]:
    prints: dict[str, Fingerprint] = {}
    for name, (method, style, steps) in ADAPTERS.items():
        with redirect_stdout(sys.stderr):  # TRL tells each step.
            prints[name] = _train(root / name, method, style, steps)
        print(f"{name}: {prints[name].trained.effect:.3f} nat a token", file=sys.stderr)
    broken = _break(root, "nf4-full")
    bases = {"base": str(BASE), **_other_bases(root)}
    order = {
        "probes": prints["nf4-full"].to_text(),
        "adapters": {name: str(root / name) for name in [*ADAPTERS, *broken]},
        "prints": {name: each.to_text() for name, each in prints.items()},
        "rounds": rounds,
        "scratch": str(root),
    }
    told = {}
    for served in SERVED:
        for which, folder in bases.items():
            if which == "base" or served == "float32":
                path = root / "order.json"
                path.write_text(
                    json.dumps({**order, "base": folder, "is_trained_on": which == "base"})
                )
                told[which, served] = _engine(served, path)
    return _table(prints, broken, told)


def _engine(served: str, order: Path) -> dict[str, Any]:
    """What the engine's process prints last."""
    command = [sys.executable, str(_PROGRAM), served, str(order)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _table(
    prints: Mapping[str, Fingerprint],
    broken: Sequence[str],
    told: Mapping[tuple[str, str], Mapping[str, Any]],
) -> dict[str, Any]:
    print("| reading | served | base | effect | of an effect of | tolerance: base, effect |")
    print("|---|---|---|---|---|---|")
    within = True
    rows: dict[str, Any] = {}
    for precision in ("float32", "bfloat16", "nf4"):
        for served in SERVED:
            found = []
            for name, whole in prints.items():
                one = _of(whole, precision)
                engine = told["base", served]
                found += [
                    compare(one, _scores(base), _scores(adapted), served)
                    for base, adapted in zip(engine["base"], engine["adapted"][name], strict=True)
                ]
            worst = max(found, key=lambda each: each.effect_difference - each.effect_limit)
            base = max(each.base_difference for each in found)
            honest = not any(each.problem for each in found)
            within &= honest
            allowed = worst.tolerance
            print(
                f"| {precision} | {served} | {base:.4f} | {worst.effect_difference:.4f} |"
                f" {worst.reading.effect:.3f} | {allowed.base:g}, {allowed.effect:g} +"
                f" {allowed.share:g} x effect |{'' if honest else ' exceeded'}"
            )
            rows[f"{precision} served in {served}"] = {
                "base": base,
                "effect": worst.effect_difference,
                "of": worst.reading.effect,
            }
    print("\n| not honest | reading | served | base | effect | of | told |")
    print("|---|---|---|---|---|---|---|")
    untold = 0
    for what in [*broken, *(which for which, _ in told if which != "base")]:
        for precision in ("float32", "bfloat16", "nf4"):
            for served in SERVED:
                if what not in broken and (what, served) not in told:
                    continue
                engine = told["base" if what in broken else what, served]
                name = what if what in broken else "nf4-full"
                one = _of(prints["nf4-full"], precision)
                scores = _scores(engine["base"][0]), _scores(engine["adapted"][name][0])
                seen = compare(one, *scores, served)
                untold += not seen.problem
                print(
                    f"| {what} | {precision} | {served} | {seen.base_difference:.4f} |"
                    f" {seen.effect_difference:.4f} | {seen.reading.effect:.3f} |"
                    f" {seen.problem.split(':')[0] or 'no'} |"
                )
    times = {served: told["base", served]["milliseconds"] for served in SERVED}
    rounding = {served: told["base", served]["rounding"] for served in SERVED}
    return {"honest_within": within, "rows": rows, "untold": untold, "rounding": rounding, **times}


def _of(whole: Fingerprint, precision: str) -> Fingerprint:
    """With one reading only."""
    (one,) = [each for each in whole.readings if each.precision == precision]
    return whole.model_copy(update={"readings": (one,)})


def _scores(value: Any) -> Scores:
    return tuple(tuple(row) for row in value)


def _train(target: Path, method: str, style: str, steps: int) -> Fingerprint:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tuneproof.adapters import read_base_config
    from tuneproof_trainer.data import Example
    from tuneproof_trainer.defaults import Base, complete
    from tuneproof_trainer.spec import RunSpec
    from tuneproof_trainer.worker.base_model import load_base
    from tuneproof_trainer.worker.fingerprint import probes_of, reading_of
    from tuneproof_trainer.worker.tokens import tokenise
    from tuneproof_trainer.worker.training import train

    torch.set_num_threads(1)
    asked = Hyperparameters(
        method=method,
        rank=16,
        alpha=32,
        learning_rate=1e-3,
        max_steps=steps,
        effective_batch_size=16,
        micro_batch_size=16,
        skip_modules=SKIPPED if method == "qlora_nf4" else (),
    )
    spec = complete(
        RunSpec(data_path="x", data_digest="sha256:" + "0" * 64, adapter_name="x", seed=1,
                hyperparameters=asked),
        Base("telecom-reader", read_base_config(BASE)),
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    turns = [Example(line, each) for line, each in enumerate(_examples(style), 1)]
    sequences = tokenise(tokenizer, turns, max_length=1024, path="x")
    base = load_base(BASE, spec.hyperparameters, "cpu")
    train(
        base, tokenizer, sequences, spec,
        workspace=target.parent / "workspace", target=target, on_step=lambda _: None,
    )  # fmt: skip
    probes = probes_of(tokenizer)
    # Every precision of the base, whichever the adapter was trained over; a GPU trains in bfloat16.
    bases = {
        "nf4": load_base(BASE, _quantised(spec.hyperparameters), "cpu").model,
        "float32": AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32),
        "bfloat16": AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.bfloat16),
    }
    readings = tuple(
        reading_of(PeftModel.from_pretrained(model, target).eval(), probes, precision)
        for precision, model in bases.items()
    )
    return Fingerprint(probes=probes, readings=readings)


def _quantised(asked: Hyperparameters) -> Hyperparameters:
    """For loading the NF4 base."""
    return asked.model_copy(update={"method": "qlora_nf4", "skip_modules": SKIPPED})


def _examples(style: str) -> list[tuple[dict[str, str], ...]]:
    from tuneproof.data.telecom import generate, oracle_context
    from tuneproof.prompts import rag_messages

    world = generate(8, documents=150, reworded=0.4)
    items = random.Random(0).sample(world.items, 200)
    return [
        (
            *rag_messages(item.question, oracle_context(world, item, 12, 8)),
            {"role": "assistant", "content": item.references[style][0]},
        )
        for item in items
    ]


def _break(root: Path, name: str) -> list[str]:
    """Copies of an adapter of which something is not applied."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(root / name / _WEIGHTS)
    config = json.loads((root / name / _CONFIG).read_text())
    modules = sorted({key.rsplit(".lora_", 1)[0] for key in weights})
    lost = {
        "one module": modules[len(modules) // 2 :][:1],
        "the attention": [each for each in modules if "self_attn" in each],
        "half of them": modules[::2],
        "doubled scale": [],
    }
    for what, gone in lost.items():
        folder = root / what
        shutil.copytree(root / name, folder)
        kept = {
            key: value for key, value in weights.items() if key.rsplit(".lora_", 1)[0] not in gone
        }
        save_file(kept, folder / _WEIGHTS)
        scale = 2 if what == "doubled scale" else 1
        alpha = {**config, "lora_alpha": scale * config["lora_alpha"]}
        (folder / _CONFIG).write_text(json.dumps(alpha))
    return list(lost)


def _other_bases(root: Path) -> dict[str, str]:
    """The base with other weights: noise of a share of each tensor's spread."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    found = {}
    for what, share in (("base + 1 % noise", 0.01), ("base + 10 % noise", 0.1)):
        folder = shutil.copytree(BASE, root / what)
        weights = load_file(folder / "model.safetensors")
        dice = np.random.default_rng(0)
        noisy = {
            name: (each + share * each.std() * dice.normal(size=each.shape)).astype(each.dtype)
            for name, each in weights.items()
        }
        save_file(noisy, folder / "model.safetensors", {"format": "pt"})
        found[what] = str(folder)
    return found


if __name__ == "__main__":
    main()
