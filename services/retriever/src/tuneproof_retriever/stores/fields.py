"""What every store keeps of a passage beside its id and its vector."""

from __future__ import annotations

from typing import Any

from tuneproof.servicekit.digests import canonical_json
from tuneproof_retriever.corpus import PreparedDocument
from tuneproof_retriever.stores.tags import tags_of


def fields_of(document: PreparedDocument, ordinal: int) -> dict[str, Any]:
    """The fields of a document's passage, by name."""
    passage = document.passages[ordinal]
    return {
        "document_id": passage.document_id,
        "document_digest": document.digest,
        "ordinal": ordinal,
        "siblings": len(document.passages),
        "start": passage.start,
        "end": passage.end,
        "title": passage.title,
        "text": passage.text,
        "metadata": canonical_json(dict(passage.metadata)).decode(),
        "tags": tags_of(passage.metadata),
    }
