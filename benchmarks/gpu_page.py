"""The tables of docs/performance.md, from the results of gpu.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_BEGIN, _END = "<!-- written by make verify-gpu -->", "<!-- end -->"
_COLUMNS = {
    "rounds": "{:d}",
    "tokens_per_s": "{:,.0f}",
    "answer_tokens_per_s": "{:,.0f}",
    "step_seconds": "{:.3f}",
    "peak_gib": "{:.1f}",
    "reserved_gib": "{:.1f}",
    "vs_plain_trl": "{:.3f}",
    "loss_difference": "{:.4f}",
    "optimizer_state_mib": "{:,.0f}",
    "paged_mib": "{:,.0f}",
}
_HEADS = (
    *("base", "setting", "rounds", "tokens/s", "of answers", "s a step", "peak GiB"),
    *("reserved GiB", "to plain TRL", "loss difference", "optimiser state MiB", "paged MiB"),
)
_NAMES = {
    "worker": "worker process",
    "memory": "out of memory",
    "qlora-1b": "QLoRA 1B",
    "qlora-8b": "QLoRA 8B",
    "embedder": "embedder",
    "equality": "engine equality",
    "load": "adapter load by stage",
    "swap": "swaps under load",
}

_LABELS = {
    "load_seconds": "loading and quantising the base, s",
    "train_seconds": "the training, s",
    "tokens_per_s": "tokens/s",
    "peak_gib": "peak memory of the GPU, GiB",
    "first_loss": "first loss",
    "final_loss": "last loss",
    "resumed_equal_digest": "killed half-way and started again: the same digest",
    "resumed_loss_difference": "… difference of the last loss",
    "resumed_weight_difference": "… largest difference of a weight, to the largest weight",
    "peft_logits_changed_by": "loaded by plain peft: largest change of a logit",
    "peft_modules_without_effect": "… modules without effect",
    "out_of_memory": "does not fit",
    "out_of_memory_is_told": "the run fails and says which settings to change",
    "repeats.trainings": "equal trainings",
    "repeats.equal_digests": "… the same digest",
    "repeats.deterministic_equal_digests": "… with deterministic kernels: the same digest",
    "repeats.deterministic_speed": "… with deterministic kernels: speed, to that without",
    "repeats.deterministic_error": "… with deterministic kernels",
    "random_weights": "random weights",
    "texts": "texts of 100 words",
    "texts_per_s_batch_32": "texts/s, 32 a batch",
    "texts_per_s_batch_256": "texts/s, 256 a batch",
    "greedy_tokens_equal": "greedy tokens equal those of transformers and peft",
}
_YES_OR_NO = ("digest", "digests", "is_told", "random_weights", "tokens_equal")


def fill(page: str, parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with its tables written anew.

    Raises:
        ValueError: when the page lacks the place for them.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page lacks {_BEGIN} and {_END}")
    return f"{before}{begin}\n{_tables(parts)}\n{end}{after}"


def _tables(parts: Mapping[str, Mapping[str, Any]]) -> str:
    blocks = [*_machines(parts), _trainings(parts), _figures(parts), *_absent(parts)]
    return "\n\n".join(blocks)


def _machines(parts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each machine on which parts were measured."""
    places: dict[str, list[str]] = {}
    for name, part in parts.items():
        if "figures" in part:
            packages = ", ".join(f"{each} {number}" for each, number in part["packages"].items())
            place = (
                f"{part['gpu']} ({part['gpu_gib']} GiB), driver {part['driver']}, CUDA "
                f"{part['cuda']}, Python {part['python']}, {packages}; {part['date']}"
            )
            places.setdefault(place, []).append(_NAMES[name])
    for place, names in places.items():
        yield f"{', '.join(names)}: {place}."


def _trainings(parts: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"| {' | '.join(_HEADS)} |", "|---" * len(_HEADS) + "|"]
    for name, part in parts.items():
        for setting, row in part.get("figures", {}).items():
            if isinstance(row, dict) and "tokens_per_s" in row:
                cells = [_cell(row.get(key), form) for key, form in _COLUMNS.items()]
                shape = name.removeprefix("qlora-").upper()
                lines.append(f"| {' | '.join([shape, setting, *cells])} |")
    return "\n".join(lines)


def _figures(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """All figures that the table of trainings leaves out."""
    lines = ["| part | figure | value |", "|---|---|---|"]
    for name, part in parts.items():
        for key, value in _flat(part.get("figures", {})):
            shown = _number(value)
            if key.endswith(_YES_OR_NO):
                shown = "yes" if value else "no"
            lines.append(f"| {_NAMES[name]} | {_LABELS.get(key, key)} | {shown} |")
    return "\n".join(lines)


def _flat(figures: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in figures.items():
        if isinstance(value, Mapping):
            if "tokens_per_s" not in value:
                yield from _flat(value, f"{within}{key}.")
        else:
            yield f"{within}{key}", value


def _absent(parts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    lines = [
        f"- {_NAMES[name]}: {part.get('not_measured') or 'failed: ' + part['failed']}"
        for name, part in parts.items()
        if "figures" not in part
    ]
    if lines:
        yield "Not measured:\n\n" + "\n".join(lines)


def _cell(value: Any, form: str) -> str:
    return "" if value is None else form.format(value)


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
