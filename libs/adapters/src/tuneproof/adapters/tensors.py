"""Reads a safetensors file from an untrusted source.

The header is parsed here, with bounds, before any library sees the file: its length, each
tensor's place and size, that the places neither overlap nor leave gaps, and that the file ends
where the last one does (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneproof.servicekit.errors import InvalidInput

HEADER_LIMIT = 16 << 20
"""Bytes; thousands of tensors fit into one."""
# A chunk is hashed and then checked while it is in the processor's cache.
_CHUNK = 1 << 19
_GROUP = 2 << 20
_MAX_THREADS = 4
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes per value."""
# Without bfloat16, which numpy lacks: there the exponent's bits tell what is not finite.
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_BF16_EXPONENT = 0x7F80
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file."""

    name: str
    dtype: str
    """F64, F32, F16 or BF16."""
    shape: tuple[int, ...]
    start: int
    """Byte of the file at which it begins."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class TensorFacts:
    """What a tensor's values show."""

    sha256: str
    """`sha256:<hex>` of its bytes as stored (little endian, row by row)."""
    finite: bool
    """No NaN and no infinity."""
    zero: bool
    """Nothing but zeros."""


def read_header(path: Path) -> tuple[Tensor, ...]:
    """The tensors of a file, sorted by name, without reading their values.

    Raises:
        InvalidInput: when the file is not a complete, sane safetensors file; the message says why.
    """
    if not path.is_file():
        raise InvalidInput(
            f"no {path.name} in {path.parent}; weights as pickle (.bin, .pt) are not read, since"
            " reading one can run code: save them as safetensors",
            field=path.name,
        )
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if head.startswith(_PICKLE_STARTS):
            raise _bad(path, "is a pickle, which can run code when read; save it as safetensors")
        if len(head) < 8:
            raise _bad(path, f"is cut off: {length} bytes are not a safetensors file")
        header_length = int.from_bytes(head, "little")
        if header_length > HEADER_LIMIT:
            raise _bad(path, f"says its header has {header_length} bytes, above {HEADER_LIMIT}")
        if header_length + 8 > length:
            raise _bad(path, f"is cut off: header of {header_length} bytes, file of {length}")
        header = _parse(path, file.read(header_length))
    tensors = [
        _tensor(path, name, entry, 8 + header_length)
        for name, entry in header.items()
        if name != "__metadata__"
    ]
    _check_layout(path, tensors, 8 + header_length, length)
    return tuple(sorted(tensors, key=lambda tensor: tensor.name))


def examine(path: Path, tensors: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, TensorFacts]]:
    """Reads each tensor's values once, in chunks, for its digest and whether they are finite.

    Threads share the tensors: OpenSSL's sha256 and numpy let others run meanwhile. The file is
    read, not mapped: the process would die if somebody cut a mapped file short.
    """
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
        for group, facts in threads.map(lambda group: _examine(path, group), _groups(tensors)):
            yield from zip(group, facts, strict=True)


def read_values(path: Path, tensor: Tensor) -> NDArray[np.float32]:
    """A tensor's values in float32, in its shape.

    Raises:
        InvalidInput: when the file was cut off after its header was read.
    """
    with path.open("rb") as file:
        file.seek(tensor.start)
        data = file.read(tensor.size)
    if len(data) < tensor.size:
        raise _bad(path, f"ended while tensor {tensor.name} was read")
    if tensor.dtype == "BF16":
        bits = np.frombuffer(data, "<u2").astype("<u4") << 16
        return bits.view("<f4").reshape(tensor.shape)
    return np.frombuffer(data, _NUMPY[tensor.dtype]).astype(np.float32).reshape(tensor.shape)


def _groups(tensors: tuple[Tensor, ...]) -> Iterator[list[Tensor]]:
    """The tensors in order, in parts that are worth a thread's start."""
    group: list[Tensor] = []
    for tensor in tensors:
        group.append(tensor)
        if sum(each.size for each in group) >= _GROUP:
            yield group
            group = []
    if group:
        yield group


def _examine(path: Path, tensors: list[Tensor]) -> tuple[list[Tensor], list[TensorFacts]]:
    buffer = memoryview(bytearray(min(_CHUNK, max(tensor.size for tensor in tensors))))
    facts = []
    with path.open("rb", buffering=0) as file:
        for tensor in tensors:
            file.seek(tensor.start)
            digest, finite, zero, left = hashlib.sha256(), True, True, tensor.size
            while left:
                chunk = buffer[: min(left, _CHUNK)]
                if _fill(file, chunk) < len(chunk):
                    raise _bad(path, f"ended while tensor {tensor.name} was read")
                digest.update(chunk)
                finite = finite and _is_finite(tensor.dtype, chunk)
                zero = zero and _is_zero(tensor.dtype, chunk)
                left -= len(chunk)
            facts.append(TensorFacts(f"sha256:{digest.hexdigest()}", finite, zero))
    return tensors, facts


def _fill(file: FileIO, chunk: memoryview) -> int:
    """Reads until a chunk is full or the file ends; the bytes read."""
    place = 0
    while place < len(chunk) and (count := file.readinto(chunk[place:])):
        place += count
    return place


def _is_finite(dtype: str, data: memoryview) -> bool:
    if dtype == "BF16":
        bits = np.frombuffer(data, "<u2")
        return int((bits & _BF16_EXPONENT).max(initial=0)) < _BF16_EXPONENT
    values: NDArray[Any] = np.frombuffer(data, _NUMPY[dtype])
    return bool(np.isfinite(values).all())


def _is_zero(dtype: str, data: memoryview) -> bool:
    """Looks at the chunk only until the first value that is not zero: a trained tensor's is."""
    bits: NDArray[Any] = np.frombuffer(data, f"<u{WIDTHS[dtype]}")
    without_sign = (1 << (8 * WIDTHS[dtype] - 1)) - 1
    return not (bits[0] & without_sign) and not (bits & without_sign).any()


def _parse(path: Path, header: bytes) -> dict[str, Any]:
    try:
        value = json.loads(header, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"has a header that is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _bad(path, "has a header that is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice")
    return value


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> Tensor:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise _bad(path, f"has a malformed entry for tensor {name!r}")
    if dtype not in WIDTHS:
        raise _bad(path, f"holds tensor {name!r} as {dtype}; known are {', '.join(sorted(WIDTHS))}")
    if not all(type(side) is int and side >= 0 for side in shape):
        raise _bad(path, f"gives tensor {name!r} the shape {shape}")
    size = math.prod(shape) * WIDTHS[dtype]
    if begin < 0 or end - begin != size:
        raise _bad(
            path,
            f"gives tensor {name!r} of shape {shape} and dtype {dtype} the bytes {begin} to "
            f"{end}, not {size} of them",
        )
    return Tensor(name, dtype, tuple(shape), data_start + begin, size)


def _check_layout(path: Path, tensors: list[Tensor], start: int, length: int) -> None:
    if not tensors:
        raise _bad(path, "holds no tensor")
    place = start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.size)):
        if tensor.start != place:
            raise _bad(path, f"has a gap or an overlap before tensor {tensor.name!r}")
        place += tensor.size
    if place > length:
        raise _bad(path, f"is cut off: its tensors end at byte {place}, the file at {length}")
    if place < length:
        raise _bad(path, f"has {length - place} bytes after its last tensor")


def _bad(path: Path, what: str) -> InvalidInput:
    return InvalidInput(f"{path.name} {what}", field=path.name)
