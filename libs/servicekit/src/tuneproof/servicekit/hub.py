"""Models of the Hugging Face hub: downloaded once, without files that run code when read.

    resolve_model  a folder, or a model id of the hub, as `--model` names it
    download       a model id, at a revision
    main           downloads one: `python -m tuneproof.servicekit.hub MODEL [REVISION]`

Needs huggingface_hub (`tuneproof-servicekit[hub]`), which is imported when something is downloaded:
a service with a folder needs neither it nor a network.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneproof.servicekit.errors import InvalidInput, Unavailable

SAFE_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
"""What is downloaded: weights, configurations, chat templates and tokenizers. All other files stay
at the hub. Pickles (*.bin, *.pt, *.pkl) and *.py are among them: reading those runs code."""


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine."""

    path: Path
    name: str
    """The model id, or the folder's name."""
    revision: str = ""
    """The commit at the hub; empty for a folder."""


def resolve_model(model: str, revision: str = "") -> ModelFolder:
    """The model that `--model` names: a folder, else what the hub has under this id.

    Args:
        revision: branch, tag or commit at the hub; empty: its main branch.

    Raises:
        InvalidInput: when it is neither, the hub does not give it, or a folder has a revision.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision:
            raise InvalidInput(
                f"--revision {revision} is given, but --model {model} is a folder; revisions are"
                " for model ids of the hub",
                field="revision",
            )
        return ModelFolder(folder.absolute(), folder.absolute().name)
    try:
        return download(model, revision)
    except (InvalidInput, Unavailable) as error:
        raise InvalidInput(
            f"--model {model} is not a folder here, and the hub does not give it: {error.message}."
            " Give a folder in Hugging Face format or another id; a gated model needs HF_TOKEN",
            field="model",
        ) from None


def download(
    model_id: str,
    revision: str = "",
    *,
    files: Sequence[str] = SAFE_FILES,
    needs: str = "*.safetensors",
) -> ModelFolder:
    """A model of the hub: from the local cache where that holds this revision, else downloaded.

    Args:
        files: patterns of what is downloaded, among `SAFE_FILES`.
        needs: pattern of a file that must be there.

    Raises:
        InvalidInput: when the hub lacks the model, the revision or the file that is needed.
        Unavailable: when the hub does not answer, and the cache does not hold the model.
    """
    # Costs 0.3 s.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(
            snapshot_download(model_id, revision=revision or None, allow_patterns=list(files))
        )
    except HFValidationError as error:
        raise InvalidInput(_first_line(error)) from None
    except RevisionNotFoundError:
        raise InvalidInput(f"it has the model, but not its revision {revision!r}") from None
    except GatedRepoError:
        raise InvalidInput("it gives this model to accepted accounts only") from None
    except RepositoryNotFoundError:
        raise InvalidInput("no public model has this id") from None
    except (LocalEntryNotFoundError, OSError) as error:
        raise Unavailable(_first_line(error)) from None
    if not list(folder.glob(needs)):
        why = "; other weights are refused, since loading them runs code"
        raise InvalidInput(f"it has no {needs} there{why if needs == '*.safetensors' else ''}")
    if needs == "*.safetensors" and (missing := _missing(folder)):
        raise Unavailable(f"the local cache lacks {', '.join(missing)}: it is not downloaded whole")
    return ModelFolder(folder, model_id, revision=folder.name)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


def _missing(folder: Path) -> list[str]:
    """The files of weights that the index names and the folder lacks."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return []
    named = set(json.loads(index.read_bytes())["weight_map"].values())
    return sorted(name for name in named if not (folder / name).exists())


def main() -> int:
    """Downloads the model that the arguments name, and says where it is."""
    try:
        print(download(*sys.argv[1:3]).path)
    except (InvalidInput, Unavailable) as error:
        print(f"{sys.argv[1]}: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
