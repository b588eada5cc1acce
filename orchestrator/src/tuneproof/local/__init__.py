"""The four services as processes of this machine."""

from tuneproof.local.options import LocalOptions, RetrieverOptions
from tuneproof.local.supervisor import Supervisor

__all__ = ["LocalOptions", "RetrieverOptions", "Supervisor"]
