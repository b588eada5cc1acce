"""Every GPU measurement of the project that the packages of this machine allow.

    make verify-gpu GPU_PYTHON=/path/to/python

The project need not be installed there: its sources are found by PYTHONPATH. A part whose packages
are missing is told as not measured, and so is one for which `--seconds` does not suffice; the
others go on, and the exit code is 1 if one of them failed.

    worker    a run by the trainer's own worker process, one that is killed half-way and started
              again, and its adapter in plain peft
    memory    what a worker says that asks for more memory than there is
    qlora-1b  the trainer's code beside plain TRL over a Llama of 1B, in turns: tokens per second,
    qlora-8b  peak memory, the paged optimiser; the same with 8B
    embedder  texts per second of the retriever's embedder in process
    equality  the generator's answers against transformers and peft
    load      how soon an adapter is served, by stage (verification.py)
    swap      adapters swapped under load (swap.py)

The bases have random weights: see gpu_bases.py. All examples have as many tokens, so nothing is
padded; training tokens per second count prompts and answers. Of each training the first two steps
do not count; a step's time is the median of the others, in all rounds. `vs_plain_trl` is the median
over the rounds.

`--json` keeps the results by part, and a part that does not run now keeps what it had; `--page`
writes them into the tables of a page. `--tiny` is a trial of seconds without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu_bases import Run, make_data, told
from gpu_page import fill

ROOT = Path(__file__).parent.parent
_PACKAGES = (
    *("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate"),
    *("sentence-transformers", "vllm"),
)
_TRAINER = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate")
_GENERATOR = ("vllm", "grpc", "torch", "transformers", "peft")


def main() -> int:
    options = _options()
    # Deterministic kernels want it, and PyTorch reads it once; on Hopper it is as large by default.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    kept: dict[str, Any] = {}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        kept = json.loads(options.json.read_text()) if options.json.is_file() else {}
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        run = Run(Path(folder), options.tiny, time.monotonic() + options.seconds)
        # Libraries print as they like; the last line of standard output is ours.
        with contextlib.redirect_stdout(sys.stderr):
            machine = _machine() if options.parts else {}
            if options.parts and not machine["gpu"] and not options.tiny:
                sys.exit("PyTorch shows no GPU here; --tiny tries the program on a CPU")
            for name in options.parts:
                kept[name] = {**machine, **_measured(name, run)}
                if options.json:
                    options.json.write_text(json.dumps(kept, indent=1))
    if options.page and not options.tiny:
        options.page.write_text(fill(options.page.read_text(), kept))
    results = {name: part.get("figures", {}) for name, part in kept.items()}
    print(json.dumps({"bench": "gpu", "results": results}))
    return int(any("failed" in kept[name] for name in options.parts))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--parts", type=_parts, default=tuple(PARTS), help=f"of {','.join(PARTS)}; or none"
    )
    parser.add_argument("--seconds", type=float, default=3600, help="no part begins after these")
    parser.add_argument("--scratch", type=Path, help="folder on a fast disk, 20 GB for 8B")
    parser.add_argument("--json", type=Path, help="file of all results by part")
    parser.add_argument("--page", type=Path, help="page whose tables are written")
    parser.add_argument("--tiny", action="store_true", help="a tiny base, without a GPU too")
    return parser.parse_args()


def _parts(text: str) -> tuple[str, ...]:
    names = () if text == "none" else tuple(text.split(","))
    unknown = set(names) - set(PARTS)
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no part {', '.join(sorted(unknown))}")
    return names


def _machine() -> dict[str, Any]:
    """The device and the versions, as every part's record holds them."""
    import torch

    on_gpu = torch.cuda.is_available()
    found: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(0) if on_gpu else "",
        "gpu_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30) if on_gpu else 0,
        "cuda": torch.version.cuda or "",
        "driver": _driver() if on_gpu else "",
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "packages": {},
    }
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found["packages"][name] = version(name)
    return found


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def _measured(name: str, run: Run) -> dict[str, Any]:
    """A part's figures, or why there are none."""
    needs, measure = PARTS[name]
    missing = [package for package in needs if find_spec(package) is None]
    if missing:
        return {"not_measured": f"{', '.join(missing)} not installed"}
    if time.monotonic() > run.ends:
        return {"not_measured": "the time was over"}
    try:
        with told(f"part {name}"):
            return {"figures": measure(run)}
    except Exception as error:  # noqa: BLE001 - the other parts go on
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"[:400]}


def _worker(run: Run) -> dict[str, Any]:
    from gpu_training import Setting
    from gpu_worker import Workers, survival

    data = make_data(64, 48, 12) if run.tiny else make_data(192, 1024, 128)
    workers = Workers(run.base("1b"), data, 6 if run.tiny else 12, run.scratch)
    return survival(workers, Setting(rank=16, micro_batch=8))


def _memory(run: Run) -> dict[str, Any]:
    from gpu_training import Setting
    from gpu_worker import Workers, out_of_memory

    if run.tiny:
        raise RuntimeError("a CPU's memory is not to be used up")
    workers = Workers(run.base("1b"), make_data(256, 1024, 128), 2, run.scratch)
    return out_of_memory(workers, Setting(rank=16, micro_batch=256))


def _qlora_1b(run: Run) -> dict[str, Any]:
    from gpu_rounds import compare
    from gpu_training import Setting

    return compare(
        run,
        "1b",
        steps=4 if run.tiny else 10,
        paired=[Setting(16, 16)] * 3,
        alone=[Setting(64, 16), Setting(16, 16, checkpointing=True)],
        repeats=True,
    )


def _qlora_8b(run: Run) -> dict[str, Any]:
    from gpu_rounds import compare
    from gpu_training import Setting

    plain, saving = Setting(16, 4), Setting(16, 16, checkpointing=True)
    return compare(
        run,
        "8b",
        steps=4 if run.tiny else 6,
        paired=[plain, plain, saving, plain],
        alone=[Setting(64, 4), Setting(16, 4, checkpointing=True), Setting(16, 16)],
    )


def _embedder(run: Run) -> dict[str, Any]:
    from gpu_rounds import embed

    return embed(run.scratch, texts=64 if run.tiny else 8192)


def _equality(_run: Run) -> dict[str, Any]:
    tests = ROOT / "services/generator/tests/test_generator_engine.py"
    test = f"{tests}::test_greedy_tokens_equal_transformers_and_peft"
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    code, _ = _program(command)
    return {"greedy_tokens_equal": int(code == 0)}


def _load(_run: Run) -> dict[str, Any]:
    return _benchmark("verification.py")


def _swap(_run: Run) -> dict[str, Any]:
    return _benchmark("swap.py")


def _benchmark(name: str) -> dict[str, Any]:
    code, output = _program([str(ROOT / "benchmarks" / name)])
    if code:
        raise RuntimeError(f"{name} ended with exit code {code}")
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])["results"]
    return figures


def _program(arguments: Sequence[str]) -> tuple[int, str]:
    """Exit code and standard output of a Python program; its errors go to ours."""
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    )
    print(done.stdout, file=sys.stderr)
    return done.returncode, done.stdout


Part = tuple[tuple[str, ...], Callable[[Run], dict[str, Any]]]
PARTS: Mapping[str, Part] = {
    "worker": (_TRAINER, _worker),
    "qlora-1b": (_TRAINER, _qlora_1b),
    "qlora-8b": (_TRAINER, _qlora_8b),
    "embedder": (("torch", "sentence_transformers"), _embedder),
    "memory": (_TRAINER, _memory),
    "equality": ((*_GENERATOR, "pytest"), _equality),
    "load": (_GENERATOR, _load),
    "swap": (_GENERATOR, _swap),
}
"""By name: the packages that it imports, and what measures it."""


if __name__ == "__main__":
    sys.exit(main())
