"""What runs in each of vLLM's workers, which are processes of their own.

vLLM imports the class that `worker_extension_cls` names before a worker is made; being imported in
a worker is all that is asked of this module.
"""

from __future__ import annotations

import os

from vllm.platforms import current_platform

from tuneproof_generator.cpu_lora import protect_base
from tuneproof_generator.worker_watch import SERVICE_PID, watch


class WorkerExtension:
    """Added to vLLM's worker class."""


watch(int(os.environ[SERVICE_PID]))
if current_platform.is_cpu():
    protect_base()
