"""`tuneproof adapters push | pull`: between artifact stores, OCI registries and folders.

The functions import the registry: numpy is slow to load.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneproof.cli.adapters.stored import Stored
from tuneproof.cli.options import takes_options
from tuneproof.servicekit.errors import InvalidInput

if TYPE_CHECKING:
    from tuneproof.adapters import AdapterRef, Registry

_OCI = "oci://"


@takes_options
def push_command(
    asked: Stored,
    source: Annotated[
        str, typer.Argument(help="`name@sha256:…` in the artifact store, or a folder of peft's.")
    ],
    target: Annotated[
        str,
        typer.Argument(help="oci://HOST/REPOSITORY:TAG, or the URL of another artifact store."),
    ] = "",
    *,
    name: Annotated[str, typer.Option(help="Of a folder: the adapter's name.")] = "",
    base: Annotated[
        Path | None, typer.Option(help="Of a folder without manifest: its base model's folder.")
    ] = None,
) -> None:
    """Copy an adapter to another artifact store or an OCI registry, or a folder into the store.

    A folder as peft wrote it needs --name and --base, and gets a manifest. Without a target it goes
    into the artifact store.

    Examples:

      tuneproof adapters push short@sha256:... oci://registry.example/team/short:v1

      tuneproof adapters push short@sha256:... s3://models/tuneproof

      tuneproof adapters push out/checkpoint-200 --name mine --base models/base
    """
    from tuneproof.adapters import AdapterRef, Registry, oci  # noqa: PLC0415 - see above

    with tempfile.TemporaryDirectory() as scratch:
        if Path(source).is_dir():
            to = target if target and not target.startswith(_OCI) else ""
            store = Registry(to) if to else asked.registry
            ref = _commit(store, Path(source), name, base)
            told = to or asked.url
            if not target.startswith(_OCI):
                asked.give({"adapter": str(ref), "target": told}, f"{ref} is in {told}")
                return
        else:
            store, ref = asked.registry, AdapterRef.parse(source)
        if not target:
            raise InvalidInput("name a target: oci://HOST/REPOSITORY:TAG, or an artifact store")
        folder = store.fetch(ref, Path(scratch))
        if target.startswith(_OCI):
            digest = oci.push(folder, ref, target)
        else:
            digest = Registry(target).take(folder, ref.name).digest
    value = {"adapter": str(ref), "target": target, "digest": digest}
    asked.give(value, f"{ref} is in {target} ({digest})")


@takes_options
def pull_command(
    asked: Stored,
    source: Annotated[
        str,
        typer.Argument(
            help="oci://HOST/REPOSITORY:TAG, or `name@sha256:…` in --from or the store."
        ),
    ],
    *,
    origin: Annotated[
        str, typer.Option("--from", help="URL of the artifact store that has the reference.")
    ] = "",
    folder: Annotated[
        Path | None,
        typer.Option(help="Write the files here, for peft, instead of into the artifact store."),
    ] = None,
    name: Annotated[str, typer.Option(help="Another name for it in the artifact store.")] = "",
) -> None:
    """Fetch an adapter from an OCI registry or another artifact store, and check all of it.

    Examples:

      tuneproof adapters pull oci://registry.example/team/short:v1

      tuneproof adapters pull short@sha256:... --from s3://models/tuneproof

      tuneproof adapters pull short@sha256:... --folder ./short
    """
    from tuneproof.adapters import AdapterRef, Registry, oci  # noqa: PLC0415 - see above

    if folder is not None and folder.exists():
        raise InvalidInput(f"{folder} exists; name a new folder")
    with tempfile.TemporaryDirectory() as scratch:
        if source.startswith(_OCI):
            files = Path(scratch) / "pulled"
            files.mkdir()
            ref = oci.pull(source, files)
        else:
            ref = AdapterRef.parse(source)
            files = Registry(origin or asked.url).fetch(ref, Path(scratch))
        store = Registry(str(Path(scratch) / "checked")) if folder is not None else asked.registry
        taken = store.take(files, name or ref.name)
        if folder is not None:
            shutil.move(store.fetch(taken, Path(scratch) / "files"), _beside(folder))
    place = str(folder or asked.url)
    asked.give({"adapter": str(taken), "place": place}, f"{taken} is in {place}")


def _beside(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


def _commit(store: Registry, folder: Path, name: str, base: Path | None) -> AdapterRef:
    """A folder's adapter in a store.

    Raises:
        InvalidInput: without a name, or without manifest and base.
    """
    from tuneproof.adapters import identify_base  # noqa: PLC0415 - see above

    if not name:
        raise InvalidInput(f"{folder} needs --name, the adapter's name")
    if (folder / "manifest.json").is_file():
        return store.take(folder, name)
    if base is None:
        raise InvalidInput(f"{folder} lacks a manifest: name its base model's folder with --base")
    origin = {"origin": f"the folder {folder.resolve().name}"}
    return store.commit(folder, name=name, base=identify_base(base), provenance=origin)
