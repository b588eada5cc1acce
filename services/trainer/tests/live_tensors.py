"""How many bytes of tensors are there at once, on a CPU, where the allocator keeps no account."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """Counts the storages of all tensors that operations give while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: dict[int, int] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Counts a tensor that was there before."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = storage.nbytes()
        weakref.finalize(storage, self._drop, key)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)

    def _drop(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)

    def __torch_dispatch__(
        self, function: Any, _types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        found = function(*arguments, **(named or {}))
        for each in tree_leaves(found):
            if isinstance(each, torch.Tensor) and each.device.type == "cpu":
                self.add(each)
        return found
