"""A judge's certificate: how far it agrees with people, by whom and on what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput

_KIND = "tuneproof judge certificate 1"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What `tuneproof judge calibrate` found."""

    judge_model: str
    rubric: str
    rubric_digest: str
    criterion: str
    mode: str
    """`sampled`, `weighted` or `pairwise`."""
    repeats: int
    temperature: float
    data: str
    """Name of the set, or of the file."""
    data_digest: str
    answers: int
    """That have a label and a grade."""
    dropped: int
    """Labels that are missing."""
    unscored: int
    figures: Mapping[str, Any]
    """By source: the judge, lexical match, another person; each as `calibration.figures`."""

    @property
    def kappa(self) -> float | None:
        """The judge's κ; None where people labelled pairs."""
        found = self.figures.get("judge", {}).get("kappa")
        return None if found is None else float(found["value"])

    @property
    def digest(self) -> str:
        """`sha256:<hex>` over all fields."""
        return sha256_of_json({"kind": _KIND, **_content(self)})

    def to_json(self) -> str:
        """The file's content."""
        whole = {"kind": _KIND, **_content(self), "digest": self.digest}
        return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def read_certificate(path: Path) -> Certificate:
    """Reads a certificate.

    Raises:
        InvalidInput: it is missing, no certificate, or was changed.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        content = None
    names = {one.name for one in fields(Certificate)}
    if not isinstance(content, dict) or not names <= content.keys() or content["kind"] != _KIND:
        raise InvalidInput(f"{path}: is no certificate of `tuneproof judge calibrate`")
    found = Certificate(**{name: content[name] for name in names})
    if found.digest != content.get("digest"):
        raise InvalidInput(f"{path}: was changed after it was written; calibrate the judge again")
    return found


def why_not_certified(
    certificates: Sequence[Certificate], *, judge_model: str, rubric_digest: str, kappa: float
) -> str:
    """Why no certificate speaks for a judge and a rubric; empty where one does.

    Args:
        kappa: the least κ.
    """
    own = [
        one
        for one in certificates
        if (one.judge_model, one.rubric_digest) == (judge_model, rubric_digest)
    ]
    if not own:
        return f"no certificate is for the judge {judge_model} and this rubric"
    best = max(one.kappa if one.kappa is not None else -1.0 for one in own)
    if best < 0.0 and all(one.kappa is None for one in own):
        return "its certificate is about pairs, and has no kappa"
    return "" if best >= kappa else f"its certificate has a kappa of {best:.2f}, below {kappa:g}"


def _content(certificate: Certificate) -> dict[str, Any]:
    return {one.name: getattr(certificate, one.name) for one in fields(Certificate)}
