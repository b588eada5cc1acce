"""What stands before an endpoint and answers in its name: a cache, a batch, requests for many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from tuneproof_judge.endpoint import ChatEndpoint
from tuneproof_judge.replies import Completion

E = TypeVar("E", bound=ChatEndpoint)


class Layer(ABC, Generic[E]):
    """A `ChatEndpoint` before another one."""

    def __init__(self, endpoint: E) -> None:
        self._endpoint = endpoint

    @property
    def url(self) -> str:
        """As the endpoint's."""
        return self._endpoint.url

    @property
    def model(self) -> str:
        """As the endpoint's."""
        return self._endpoint.model

    @property
    def structured(self) -> bool:
        """As the endpoint's."""
        return self._endpoint.structured

    async def complete(
        self,
        prompt: str,
        *,
        seed: int,
        temperature: float,
        max_tokens: int,
        deadline: float | None,
        probabilities: bool = False,
        begun: str = "",
        form: Mapping[str, Any] | None = None,
    ) -> Completion:
        """As the endpoint's."""
        asked = {
            "prompt": prompt,
            "seed": seed,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "probabilities": probabilities,
            "begun": begun,
            "form": form,
        }
        return await self._completed(asked, deadline)

    @abstractmethod
    async def _completed(self, asked: Mapping[str, Any], deadline: float | None) -> Completion:
        """The completion.

        Args:
            asked: the arguments of `complete` but the deadline.
        """
