"""The steps of a worker that need torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from transformers import AutoTokenizer

from tuneproof.adapters.base import identify_base
from tuneproof.adapters.fingerprint import FINGERPRINT
from tuneproof_trainer.examples import Examples
from tuneproof_trainer.progress import Step
from tuneproof_trainer.record import Job
from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.checkpoints import Checkpoints
from tuneproof_trainer.worker.reporting import Reporting, reporting_of
from tuneproof_trainer.worker.tokens import tokenise


def make_adapter(
    spec: RunSpec,
    job: Job,
    examples: Examples,
    target: Path,
    *,
    on_phase: Callable[[str], None],
    on_step: Callable[[Step], None],
    checkpoints: Checkpoints | None = None,
) -> tuple[dict[str, str], str]:
    """Trains and saves an adapter.

    Args:
        target: the folder to make; gets what peft saves.
        on_phase: called when another part of the work begins.
        checkpoints: those of the run; the training goes on from the newest, and adds more.

    Returns:
        the provenance, and the text of the model card; nothing in the other processes of a
        training that several share.

    Raises:
        InvalidInput: when spec, data and base do not fit, or the training diverges.
        StoppedError: when the worker was told to stop; a checkpoint was added.
    """
    on_phase("tokenising")
    folder = Path(job.base_folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = spec.hyperparameters
    fitting = partial(
        tokenise, tokenizer, max_length=asked.max_length, drop=asked.too_long == "drop"
    )
    sequences = fitting(examples.training, path=spec.data_path)
    validation = fitting(
        examples.validation,
        path=spec.validation_path or spec.data_path,
        part="validation" if spec.validation_path else "data",
    )
    on_phase("loading")
    # These imports take seconds; too long examples are reported before them.
    import torch  # noqa: PLC0415

    from tuneproof_trainer.worker.base_model import load_base  # noqa: PLC0415
    from tuneproof_trainer.worker.card import card_of  # noqa: PLC0415
    from tuneproof_trainer.worker.fingerprint import take_fingerprint  # noqa: PLC0415
    from tuneproof_trainer.worker.provenance import provenance_of  # noqa: PLC0415
    from tuneproof_trainer.worker.sharing import rank  # noqa: PLC0415
    from tuneproof_trainer.worker.training import train  # noqa: PLC0415

    torch.set_num_threads(job.threads)
    begun = time.monotonic()
    base = load_base(folder, asked, job.device)
    loaded = time.monotonic() - begun
    on_phase("training")
    outcome = train(
        base,
        tokenizer,
        sequences,
        spec,
        workspace=target / "workspace",
        target=target,
        on_step=on_step,
        checkpoints=checkpoints,
        validation=validation,
        reporting=Reporting() if rank() else reporting_of(job),
    )
    if rank():
        return {}, ""
    identity = identify_base(folder)
    facts = provenance_of(
        spec, job, base=base, identity=identity, sequences=sequences, outcome=outcome
    )
    facts["load_seconds"] = f"{loaded:.2f}"
    facts["resumed_from_step"] = str(outcome.resumed_from)
    facts["dropped_examples"] = str(len(examples.training) - len(sequences))
    facts[FINGERPRINT] = take_fingerprint(base, tokenizer, folder, target).to_text()
    return facts, card_of(spec.adapter_name, facts)
