"""What runs in each of vLLM's workers, which are processes of their own.

vLLM imports the class that `worker_extension_cls` names before a worker is made, so what is done at
import is done in each worker.
"""

from __future__ import annotations

import os
from typing import Any

from vllm.platforms import current_platform

from tuneproof_generator.engine.cpu_experts import keep_experts_plain
from tuneproof_generator.engine.cpu_lora import protect_base, protect_prompt_scores
from tuneproof_generator.engine.cpu_segments import share_products
from tuneproof_generator.engine.worker_watch import SERVICE_PID, watch


class WorkerExtension:
    """Added to vLLM's worker class; its methods are called by `collective_rpc`."""

    model_runner: Any

    def adapters_held(self) -> tuple[list[int], list[int], list[int]]:
        """Engine ids in this worker's host memory, in its slots (`list_loras` of vLLM 0.32 gives
        only the former), and pinned ones."""
        held = self.model_runner.lora_manager
        manager = held._adapter_manager  # noqa: SLF001 - not public
        slots = [one for one in manager.lora_index_to_id if one is not None]
        return sorted(held.list_adapters()), slots, sorted(manager._active_adapters.pinned_items)  # noqa: SLF001


watch(int(os.environ[SERVICE_PID]))
if current_platform.is_cpu():
    share_products()  # Before it is wrapped.
    protect_base()
    protect_prompt_scores()
    keep_experts_plain()
