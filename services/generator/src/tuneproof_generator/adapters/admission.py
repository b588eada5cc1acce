"""The base model's folder, and what admission compares adapters with."""

from __future__ import annotations

from pathlib import Path

from tuneproof.adapters import AdapterRef, BaseIdentity, read_base_config, verify
from tuneproof.adapters.loraconfig import read_lora_config
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_generator.adapters.loading import Inspect, Inspected


def resolve_model(model: str) -> Path:
    """The local folder of a model: itself, or the hub's snapshot, downloaded when it is not here.

    Raises:
        InvalidInput: when it is neither.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.absolute()
    # Imported late: a folder needs no hub.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415

    try:
        return Path(snapshot_download(model))
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidInput(
            f"--model {model} is no folder here, and the hub does not give it: {reason}."
            " Give a folder in Hugging Face format or another id; a gated model needs HF_TOKEN",
            field="model",
        ) from None


def inspector(folder: Path, base: BaseIdentity, max_rank: int) -> Inspect:
    """Admission against the base model in a folder.

    Args:
        max_rank: the largest rank that the engine was started for.
    """
    config = read_base_config(folder)

    def inspect(adapter: Path, ref: AdapterRef) -> Inspected:
        report = verify(adapter, base=base, base_config=config, max_rank=max_rank, expected=ref)
        report.raise_if_bad()
        size = sum(path.stat().st_size for path in adapter.iterdir() if path.is_file())
        return Inspected(int(read_lora_config(adapter)["r"]), size)

    return inspect
