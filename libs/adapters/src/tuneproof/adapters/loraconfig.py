"""The adapter_config.json that peft writes, reduced to what changes the adapter's answers."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from tuneproof.servicekit.errors import InvalidInput

CONFIG_FILE = "adapter_config.json"
_SIZE_LIMIT = 4 << 20
# They concern training, loading or the file's origin, not what the adapter computes.
_VOLATILE = frozenset(
    {
        "arrow_config",
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "inference_mode",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
)
_UNORDERED = frozenset({"target_modules", "exclude_modules", "modules_to_save"})
_PATTERN = re.compile(r"[A-Za-z0-9_.]{1,200}")


def read_lora_config(folder: Path) -> dict[str, Any]:
    """The adapter_config.json of a folder.

    Raises:
        InvalidInput: when it is missing, larger than 4 MiB, or not a JSON object.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InvalidInput(f"no {CONFIG_FILE} in {folder}", field=CONFIG_FILE)
    if path.stat().st_size > _SIZE_LIMIT:
        raise InvalidInput(f"{CONFIG_FILE} is larger than {_SIZE_LIMIT} bytes", field=CONFIG_FILE)
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{CONFIG_FILE} is not JSON: {error}", field=CONFIG_FILE) from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{CONFIG_FILE} is not a JSON object", field=CONFIG_FILE)
    return value


def normalise(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that the digest covers.

    Values that mean "not used" (null, false, empty) are left out, so that a newer peft with more
    settings gives the same; unordered lists are sorted.
    """
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if key in _VOLATILE or value in (None, False, "none") or value in ([], {}, ""):
            continue
        if key == "init_lora_weights" and not isinstance(value, str):
            continue
        unordered = key in _UNORDERED and isinstance(value, list)
        kept[key] = sorted(value, key=str) if unordered else value
    return kept


def rank_of(config: dict[str, Any], module: str) -> int:
    """The rank that peft and vLLM give a module, by `rank_pattern` too.

    Args:
        config: one in which `unsupported` found nothing.
        module: as `model.layers.0.self_attn.q_proj`.
    """
    for pattern, rank in (config.get("rank_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return int(rank)
    return int(config["r"])


def unsupported(config: dict[str, Any]) -> list[tuple[str, str]]:
    """What vLLM 0.32 would refuse, or take and silently compute otherwise.

    Returns:
        pairs of the field and a sentence.
    """
    found: list[tuple[str, str]] = []
    if config.get("peft_type") != "LORA":
        found.append(("peft_type", f"peft_type is {config.get('peft_type')!r}; only LORA works"))
    if not _is_rank(config.get("r")):
        found.append(("r", f"r is {config.get('r')!r}, not a whole number above 0"))
    if not _is_alpha(config.get("lora_alpha")):
        sentence = f"lora_alpha is {config.get('lora_alpha')!r}, not a finite number other than 0"
        found.append(("lora_alpha", sentence))
    if not isinstance(config.get("target_modules"), list | str):
        found.append(("target_modules", "target_modules is neither a list nor a pattern"))
    used = normalise(config)
    found += [
        (key, f"{key} is {used[key]!r}: vLLM does not serve it; {advice}")
        for key, advice in _REFUSED.items()
        if key in used
    ]
    init = used.get("init_lora_weights", "gaussian")
    if init not in _INITS:
        sentence = (
            f"init_lora_weights is {init!r}, which changes the base's weights; convert the "
            "adapter with peft's path_initial_model_for_weight_conversion"
        )
        found.append(("init_lora_weights", sentence))
    return found + _patterns(config)


_REFUSED = {
    "use_dora": "train without DoRA, or merge the adapter",
    "bias": "train with bias none",
    "lora_bias": "train with lora_bias false",
    "modules_to_save": "train without whole modules",
    "layer_replication": "train on the layers as they are",
    "alora_invocation_tokens": "train plain LoRA",
    "use_bdlora": "train plain LoRA",
    "use_qalora": "train plain LoRA",
    "trainable_token_indices": "train without new tokens",
    "target_parameters": "name the linear layers in target_modules (for a mixture of experts peft's"
    " all-linear takes the experts in, too)",
    "fan_in_fan_out": "target linear layers",
    "kasa_config": "train plain LoRA",
    "velora_config": "train plain LoRA",
    "monteclora_config": "train plain LoRA",
}
_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})


def _patterns(config: dict[str, Any]) -> list[tuple[str, str]]:
    """The patterns' mistakes. To peft and vLLM keys are regular expressions, so only names pass."""
    found: list[tuple[str, str]] = []
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(field) or {}
        if not isinstance(patterns, dict):
            found.append((field, f"{field} is not an object"))
            continue
        found += [
            (field, f"{field} has the key {key!r}; only module names are taken")
            for key in patterns
            if not _PATTERN.fullmatch(key)
        ]
        is_good, what = (_is_rank, "rank") if field == "rank_pattern" else (_is_alpha, "alpha")
        found += [
            (field, f"{field} gives {key} the {what} {value!r}")
            for key, value in patterns.items()
            if not is_good(value)
        ]
    return found


def _is_alpha(value: Any) -> bool:
    """Whether it scales an adapter: with 0 the base answers alone, with NaN every answer is NaN."""
    return type(value) in (int, float) and math.isfinite(value) and value != 0


def _is_rank(value: Any) -> bool:
    return type(value) is int and value > 0
