"""The digest of a corpus, and the check that it is whole."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tuneproof.servicekit.digests import canonical_json
from tuneproof.servicekit.errors import Corrupted
from tuneproof_retriever.corpus import Corpus
from tuneproof_retriever.stores.protocol import StoredPassage

_FORMAT = "tuneproof corpus 1"


@dataclass(frozen=True)
class Content:
    """What a whole corpus holds."""

    digest: str
    documents: int
    passages: int


async def read_content(corpus: Corpus, passages: AsyncIterator[list[StoredPassage]]) -> Content:
    """Digest and counts of a corpus.

    The digest is sha256 over lines of canonical JSON: a first line with the format's name, the
    embedder's digest and the chunking, then `[id, document id, start, end, title, text, metadata]`
    of every passage by ascending id. Vectors are not in it: their last digits depend on the
    processor, and the embedder's digest stands for them.

    Args:
        passages: by ascending id.

    Raises:
        Corrupted: when a passage is there twice, or missing from its document.
    """
    head = [_FORMAT, corpus.embedder.digest, corpus.chunking.settings]
    digest = hashlib.sha256(canonical_json(head) + b"\n")
    missing: Counter[str] = Counter()
    count, documents, last = 0, 0, ""
    async for batch in passages:
        for stored in batch:
            passage = stored.passage
            if passage.id <= last:
                raise Corrupted(
                    f"corpus {corpus.name!r} holds passage {passage.id} of document"
                    f" {passage.document_id!r} twice; delete the corpus and ingest again"
                )
            last = passage.id
            count += 1
            if stored.ordinal == 0:
                documents += 1
                missing[passage.document_id] += stored.siblings
            missing[passage.document_id] -= 1
            line = [
                passage.id,
                passage.document_id,
                passage.start,
                passage.end,
                passage.title,
                passage.text,
                dict(passage.metadata),
            ]
            digest.update(canonical_json(line) + b"\n")
    broken = sorted(document for document, number in missing.items() if number)
    if broken:
        raise Corrupted(
            f"corpus {corpus.name!r} lacks passages of {len(broken)} documents, first"
            f" {broken[0]!r}; ingest these again, or delete the corpus and ingest all again"
        )
    return Content(f"sha256:{digest.hexdigest()}", documents, count)
