"""The LoRA adapter artifact: its name, its digest, where it is kept, whether it may be served.

AdapterRef       name@sha256:…
BaseIdentity     the base model it fits; `identify_base` computes it from a folder
Manifest         the hashed document; Provenance, the one that is not
Registry         commit, list, manifest, provenance, fetch
open_storage     the artifact store behind it: a Storage; BoundedStore limits how long a call takes
has_experts      whether a base is a mixture of experts, of which adapters change ATTENTION only
Fingerprint      what an adapter did in training; `compare` sets an engine's readings beside it
verify           the admission checks, offline too: an AdmissionReport with all defects
"""

from tuneproof.adapters.admission import verify
from tuneproof.adapters.base import BaseIdentity, identify_base, read_base_config
from tuneproof.adapters.bounded import BoundedStore
from tuneproof.adapters.fingerprint import Fingerprint, fingerprint_of
from tuneproof.adapters.likeness import Likeness, compare
from tuneproof.adapters.manifest import Manifest, Provenance, TensorEntry
from tuneproof.adapters.ref import AdapterRef, check_name
from tuneproof.adapters.registry import Registry
from tuneproof.adapters.report import AdmissionReport, Defect
from tuneproof.adapters.shapes import ATTENTION, has_experts
from tuneproof.adapters.storage import (
    FolderStorage,
    ObjectStore,
    RemoteStorage,
    Storage,
    open_storage,
)

__all__ = [
    "ATTENTION",
    "AdapterRef",
    "AdmissionReport",
    "BaseIdentity",
    "BoundedStore",
    "Defect",
    "Fingerprint",
    "FolderStorage",
    "Likeness",
    "Manifest",
    "ObjectStore",
    "Provenance",
    "Registry",
    "RemoteStorage",
    "Storage",
    "TensorEntry",
    "check_name",
    "compare",
    "fingerprint_of",
    "has_experts",
    "identify_base",
    "open_storage",
    "read_base_config",
    "verify",
]
