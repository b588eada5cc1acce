"""What a run is asked for: a YAML file, and flags that go before it.

Each hyper-parameter is a flag of its name, made from the class that holds them all.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.adapters.ref import DIGEST_PATTERN
from tuneproof.cli.asking import AskedTrainer
from tuneproof.cli.runs.figures import words_of
from tuneproof.sdk import RunSpec
from tuneproof.sdk.datasets import store_data
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.yamlfile import FileKind

_LONGEST_STEM = 50
_DIGITS = 8

DataArgument = Annotated[
    str,
    typer.Argument(
        help="JSON Lines of conversations: a file here, which is put into the artifact store, or"
        " PATH@sha256:… of one that is there."
    ),
]
ArtifactsOption = Annotated[
    str,
    typer.Option(
        help="The trainer's artifact store, a folder or a URL; by default <state>/artifacts."
    ),
]


class RunFile(BaseModel, frozen=True, extra="forbid"):
    """A run as YAML; what is left out is left to flags and the trainer."""

    data: str = ""
    """As the argument; a file is sought beside this one, as are the next two."""
    validation: str = ""
    held_out: str = ""
    allow_leakage: bool = False
    adapter: str = ""
    base_model: str = ""
    seed: int = Field(default=0, ge=0, lt=2**32)
    hyperparameters: Hyperparameters = Hyperparameters()


RUN_FILE = FileKind(RunFile, "a run file", "a run: `adapter: <name>`, `data: <file>` …")


@dataclass(frozen=True)
class AskedRun(AskedTrainer):
    """Of commands that are told a run; each field is an option of the command."""

    spec: Annotated[
        Path | None,
        typer.Option(
            help="YAML with data, validation, held_out, adapter, base_model, seed and"
            " hyperparameters; flags go first."
        ),
    ] = None
    adapter: Annotated[str, typer.Option(help="Name under which the adapter is kept.")] = ""
    base_model: Annotated[
        str, typer.Option(help="One of the trainer's bases; needed where it has several.")
    ] = ""
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Seed of the training; default 0.")
    ] = None
    validation: Annotated[
        str,
        typer.Option(
            help="Conversations that only validate, instead of --validation-share of DATA."
        ),
    ] = ""
    held_out: Annotated[
        str,
        typer.Option(
            help="What training must not see, as test items: JSON Lines of id, text or sha256."
        ),
    ] = ""
    allow_leakage: Annotated[
        bool, typer.Option("--allow-leakage", help="Train on what is held out, too.")
    ] = False
    artifacts: ArtifactsOption = ""

    def run_spec(self, data: str, given: Mapping[str, Any]) -> RunSpec:
        """The spec of the run, its files in the artifact store.

        Args:
            given: hyper-parameters by name, which go before those of the file.

        Raises:
            InvalidInput: for mistakes in the file or the flags, or where neither names data or an
                adapter.
        """
        said = RUN_FILE.load(self.spec) if self.spec is not None else RunFile()
        hyperparameters = merged(said.hyperparameters, given)
        asked = {
            "DATA": data or beside(self.spec, said.data),
            "--adapter": self.adapter or said.adapter,
        }
        if missing := [name for name, value in asked.items() if not value]:
            raise InvalidInput(
                f"say {' and '.join(missing)}, or name a file that says so with --spec"
            )
        store = store_of(self, self.artifacts)
        path, digest = put_data(asked["DATA"], store)
        validation = put_data(self.validation or beside(self.spec, said.validation), store)
        held_out = put_data(self.held_out or beside(self.spec, said.held_out), store)
        return RunSpec(
            adapter_name=asked["--adapter"],
            data_path=path,
            data_digest=digest,
            base_model=self.base_model or said.base_model,
            seed=said.seed if self.seed is None else self.seed,
            hyperparameters=hyperparameters,
            validation_path=validation[0],
            validation_digest=validation[1],
            held_out_path=held_out[0],
            held_out_digest=held_out[1],
            allow_leakage=self.allow_leakage or said.allow_leakage,
        )


def store_of(asked: AskedTrainer, artifacts: str) -> str:
    """The artifact store that is named, or the state folder's."""
    return artifacts or str(asked.state.resolve() / "artifacts")


def takes_hyperparameters(command: Callable[..., None]) -> Callable[..., None]:
    """The command with a flag for each hyper-parameter; it gets those that are given as `given`."""
    own = signature(command, eval_str=True).parameters
    kept = [each for name, each in own.items() if name != "given"]
    fields = Hyperparameters.model_fields
    flags = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=_flag(field))
        for name, field in fields.items()
    ]

    @wraps(command)
    def run(*arguments: Any, **values: Any) -> None:
        asked = {name: values.pop(name) for name in fields}
        given = {
            name: _listed(value) if _is_list(fields[name].annotation) else value
            for name, value in asked.items()
            if value is not None
        }
        command(*arguments, given=given, **values)

    # typer 0.29 reads both.
    run.__signature__ = Signature([*kept, *flags])  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in (*kept, *flags)}
    return run


def merged(said: Hyperparameters, given: Mapping[str, Any]) -> Hyperparameters:
    """Those of a file with those of flags, which go first.

    Raises:
        InvalidInput: with every mistake, each by its flag.
    """
    values = said.model_dump(exclude_unset=True) | dict(given)
    try:
        return Hyperparameters.model_validate(values)
    except ValidationError as error:
        raise InvalidInput("\n".join(_mistakes(error))) from None


def beside(file: Path | None, data: str) -> str:
    """Data that a file names: beside the file, unless it stands in the artifact store."""
    if not data or file is None or in_store(data) is not None:
        return data
    return str(file.parent / Path(data).expanduser())


def put_data(data: str, artifacts: str) -> tuple[str, str]:
    """Path and digest of data in an artifact store, put there if it is a file here; both are empty
    where no data are named.

    Raises:
        InvalidInput: when the file cannot be read or is empty.
    """
    if not data:
        return "", ""
    if stored := in_store(data):
        return stored
    try:
        content = Path(data).expanduser().read_bytes()
    except OSError as error:
        raise InvalidInput(f"{data}: cannot be read: {error.strerror}") from None
    if not content.strip():
        raise InvalidInput(f"{data} is empty; write one conversation a line")
    return store_data(artifacts, content)


def in_store(data: str) -> tuple[str, str] | None:
    """Path and digest of `PATH@sha256:…`; None for a file of this machine."""
    path, _, digest = data.rpartition("@")
    return (path, digest) if path and DIGEST_PATTERN.fullmatch(digest) else None


def id_of(stem: str, spec: RunSpec) -> str:
    """An id that stands for the content of a spec: the same spec has the same."""
    return f"{stem[:_LONGEST_STEM].rstrip('-')}-{spec.content_digest[:_DIGITS]}"


def _mistakes(error: ValidationError) -> Iterator[str]:
    for each in error.errors(include_url=False):
        if not each["loc"]:
            yield each["msg"].removeprefix("Value error, ")
            continue
        flag = f"--{str(each['loc'][0]).replace('_', '-')}"
        yield f"{flag} is {each['input']!r}: {each['msg'].removeprefix('Value error, ')}"


def _flag(field: FieldInfo) -> Any:
    kind = _plain(field.annotation)
    said = " ".join((field.description or "").replace("`", "").split())
    if _is_list(kind):
        kind, said = str, f"{said} Separated by commas."
    elif field.default is not None:
        said = f"{said} Default: {words_of(field.default)}."
    option = typer.Option(help=said)
    return Annotated[kind | None, option]


def _plain(kind: Any) -> Any:
    """The type without `None`."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    (only,) = (each for each in get_args(kind) if each is not types.NoneType)
    return only


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _listed(value: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, value.split(","))))
