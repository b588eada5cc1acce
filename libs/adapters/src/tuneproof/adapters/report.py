"""What an examination of an adapter found."""

from __future__ import annotations

from dataclasses import dataclass

from tuneproof.adapters.ref import AdapterRef
from tuneproof.servicekit.errors import InvalidInput

_SHOWN = 20


@dataclass(frozen=True)
class Defect:
    """One reason not to serve an adapter."""

    code: str
    """pickle, config, unsupported, weights, not_finite, no_effect, digest, base, module, layer,
    pair, rank or shape."""
    where: str
    """The file, field or tensor."""
    message: str
    """A sentence: what is wrong and what to do."""


@dataclass(frozen=True)
class AdmissionReport:
    """All that was found, and what could not be checked."""

    adapter: AdapterRef | None
    """What it was expected to be."""
    tensors: int
    size_bytes: int
    """Of the values."""
    defects: tuple[Defect, ...]
    notes: tuple[str, ...]
    """What was not checked, and why."""
    changes_nothing: bool = False
    """Every product of its matrices is zero: a defect, unless it was allowed."""

    @property
    def ok(self) -> bool:
        """Whether it may be served."""
        return not self.defects

    def raise_if_bad(self) -> None:
        """Raises InvalidInput that lists every defect (the first 20 in words)."""
        if self.ok:
            return
        lines = [f"{defect.code}: {defect.message}" for defect in self.defects[:_SHOWN]]
        if len(self.defects) > _SHOWN:
            lines.append(f"and {len(self.defects) - _SHOWN} more")
        name = str(self.adapter) if self.adapter else "the adapter"
        raise InvalidInput(
            f"{name} cannot be served: " + "; ".join(lines),
            field="adapter_ref",
            reason="ADAPTER_REFUSED",
            codes=",".join(sorted({defect.code for defect in self.defects})),
        )
