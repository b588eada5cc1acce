"""The arguments with which vLLM is started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform

from tuneproof.adapters import ATTENTION, has_experts, read_base_config
from tuneproof.servicekit.errors import InvalidInput

_MIN_BATCHED_TOKENS = 2048
_CPU_BLOCK = 32
# By name: the first does its work where it is imported, and that is in a worker; the second imports
# most of vLLM.
_WORKER_EXTENSION = "tuneproof_generator.engine.worker.WorkerExtension"
_CPU_EXECUTOR = "tuneproof_generator.engine.cpu_executor.ForkingExecutor"


@dataclass(frozen=True)
class EngineOptions:
    """What can be chosen about the engine."""

    folder: Path
    """The base model in Hugging Face format."""
    model_name: str
    """The name under which it is served."""
    dtype: str
    """`auto` is float32 on a CPU, else what the model's config says."""
    max_model_len: int | None
    """Tokens of prompt and answer together; None is what the model's config says."""
    max_lora_rank: int
    max_loras: int
    slot_seconds: float
    """How long a busy adapter keeps its slot of `max_loras` while others wait for one."""
    max_cpu_loras: int
    max_num_seqs: int
    block_size: int | None
    """Tokens of a prefix cache block; None is 32 on a CPU, else vLLM's choice."""
    cpu_cache_mib: int
    """KV cache on a CPU."""
    gpu_memory_utilization: float
    """Share of a GPU's memory that the engine takes."""
    stream_interval: int
    """Tokens between two deltas of a stream."""
    tensor_parallel: int
    """GPUs over which the model is split."""


def engine_arguments(options: EngineOptions) -> AsyncEngineArgs:
    """vLLM's arguments.

    Raises:
        InvalidInput: when neither the options nor the model's config give the context length.
    """
    on_cpu = bool(current_platform.is_cpu())
    special = _on_cpu(options) if on_cpu else _on_gpu(options)
    return AsyncEngineArgs(
        model=str(options.folder),
        served_model_name=[options.model_name],
        enable_lora=True,
        max_lora_rank=_supported_rank(options.max_lora_rank),
        lora_target_modules=_adapted_modules(options.folder),
        max_loras=options.max_loras,
        max_cpu_loras=options.max_cpu_loras,
        max_num_seqs=options.max_num_seqs,
        stream_interval=options.stream_interval,
        enable_prefix_caching=True,
        use_tqdm_on_load=False,
        worker_extension_cls=_WORKER_EXTENSION,
        **special,
    )


def _on_cpu(options: EngineOptions) -> dict[str, Any]:
    context = options.max_model_len or _context(options.folder)
    return {
        "dtype": "float32" if options.dtype == "auto" else options.dtype,
        "max_model_len": context,
        "block_size": options.block_size or _CPU_BLOCK,
        "kv_cache_memory_bytes": options.cpu_cache_mib << 20,
        # With chunked prefill one request with a seed ends vLLM 0.32's CPU engine ("CPU Generator
        # does not use offset"). Whole prompts need batches that hold the longest.
        "enable_chunked_prefill": False,
        "distributed_executor_backend": _CPU_EXECUTOR,
        "max_num_batched_tokens": max(context, _MIN_BATCHED_TOKENS),
    }


def _on_gpu(options: EngineOptions) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "dtype": options.dtype,
        "max_model_len": options.max_model_len,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "tensor_parallel_size": options.tensor_parallel,
    }
    if options.block_size is not None:
        chosen["block_size"] = options.block_size
    return chosen


def _context(folder: Path) -> int:
    config = read_base_config(folder)
    context = config.get("max_position_embeddings")
    if not isinstance(context, int) or context < 1:
        raise InvalidInput(
            f"{folder / 'config.json'} lacks max_position_embeddings; set max_model_len",
            field="max_model_len",
        )
    return context


def _adapted_modules(folder: Path) -> list[str] | None:
    """What adapters may change: in a mixture of experts the attention alone, as admission has it.
    Else vLLM keeps slots for every expert, and on a CPU refuses to start."""
    return list(ATTENTION) if has_experts(read_base_config(folder)) else None


def _supported_rank(rank: int) -> int:
    """The smallest maximum rank that vLLM can be started with and that holds this rank."""
    supported = (1, 8, 16, 32, 64, 128, 256, 320, 512)
    for candidate in supported:
        if rank <= candidate:
            return candidate
    raise InvalidInput(
        f"max_lora_rank is {rank}; vLLM takes {supported[-1]} at most", field="max_lora_rank"
    )
