"""The four services as processes of this machine."""

from tuneproof.local.options import LocalBase, LocalOptions, RetrieverOptions
from tuneproof.local.supervisor import Supervisor

__all__ = ["LocalBase", "LocalOptions", "RetrieverOptions", "Supervisor"]
