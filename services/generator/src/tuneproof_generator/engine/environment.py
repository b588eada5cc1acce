"""The environment that vLLM reads when it is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tuneproof_generator.engine.worker_watch import SERVICE_PID


def environment(*, threads: int, verbose: bool) -> Mapping[str, str]:
    """What vLLM reads from the environment; set it before vLLM is imported.

    Args:
        threads: of each worker on a CPU; 0 leaves it to the machine.
    """
    found = {
        SERVICE_PID: str(os.getpid()),
        "VLLM_LOGGING_LEVEL": "INFO" if verbose else "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # The doors check names themselves: no plugins, no loading by HTTP, no unchecked names.
        "VLLM_PLUGINS": "",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
        "VLLM_SERVER_DEV_MODE": "0",
        "VLLM_SKIP_MODEL_NAME_VALIDATION": "0",
        # Bound to cores, two services on one machine would share some and leave others idle.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_CPP_LOG_LEVEL": "INFO" if verbose else "ERROR",
    }
    if threads:
        found["OMP_NUM_THREADS"] = str(threads)
    return found
