"""Asynchronous clients of the four services.

    async with RetrieverClient("127.0.0.1:47801") as retriever:
        passages = await retriever.search("manual", "What is the Alder 40 transmit power?")

Calls take and give the values of `values`, `pools`, `runs` and `planning`, and raise the errors of
`tuneproof.servicekit.errors`. The `…_many` methods yield pairs of id and result or error: one bad
item ends nothing, and a stream that fails as a whole raises after what it had received, so that
the caller can ask again for what is missing.
"""

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.sdk.endpoints import SERVICES, Endpoints
from tuneproof.sdk.generator import GeneratorClient
from tuneproof.sdk.judge import BATCH_PENDING, JudgeClient
from tuneproof.sdk.planning import RunPlan
from tuneproof.sdk.pools import AdapterInfo, AliasInfo, PoolInfo, ReplicaInfo, Transition
from tuneproof.sdk.retriever import RetrieverClient
from tuneproof.sdk.runs import RunInfo, RunProgress, RunSpec
from tuneproof.sdk.trainer import TrainerClient
from tuneproof.sdk.values import (
    Chunking,
    CompareInput,
    CorpusInfo,
    DamagedCorpus,
    GenerateInput,
    Generation,
    GradeInput,
    IngestResult,
    PairComparison,
    PairGrade,
    PairRepeat,
    Passage,
    RejectedDocument,
    Rerank,
    Restarted,
    Sampling,
    StepsDraft,
)

__all__ = [
    "BATCH_PENDING",
    "SERVICES",
    "AdapterInfo",
    "AliasInfo",
    "Chunking",
    "CompareInput",
    "CorpusInfo",
    "DamagedCorpus",
    "Endpoints",
    "GenerateInput",
    "Generation",
    "GeneratorClient",
    "GradeInput",
    "Hyperparameters",
    "IngestResult",
    "JudgeClient",
    "PairComparison",
    "PairGrade",
    "PairRepeat",
    "Passage",
    "PoolInfo",
    "RejectedDocument",
    "ReplicaInfo",
    "Rerank",
    "Restarted",
    "RetrieverClient",
    "RunInfo",
    "RunPlan",
    "RunProgress",
    "RunSpec",
    "Sampling",
    "StepsDraft",
    "TrainerClient",
    "Transition",
]
