"""What a grade took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """What the judge asked of its endpoint."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the endpoint reports as cached."""
    requests: int = 0
    price: float | None = None
    """None where the judge's table of prices lacks the model."""
    currency: str = ""
