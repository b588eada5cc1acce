"""The variables that every worker gets, wherever it runs."""

from __future__ import annotations

from tuneproof.servicekit import tracing
from tuneproof_trainer.record import Job

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""glibc gives each large tensor fresh pages and takes them back at once: on a CPU the page faults
were a fifth of a step. Bytes."""


def variables_for(job: Job) -> dict[str, str]:
    """Variables of a job's worker, by name."""
    return {
        "OMP_NUM_THREADS": str(job.threads),
        "MKL_NUM_THREADS": str(job.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # The base is a folder by now, so no library needs to ask the hub, or to wait for it.
        "HF_HUB_OFFLINE": "1",
        **KEEP_MEMORY,
        **tracing.variables(),
    }
