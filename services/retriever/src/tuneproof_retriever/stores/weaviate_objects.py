"""Passages as Weaviate's objects, and back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weaviate.classes.data import DataObject

from tuneproof_retriever.corpus import Passage, PreparedDocument
from tuneproof_retriever.stores.fields import fields_of
from tuneproof_retriever.stores.protocol import StoredPassage
from tuneproof_retriever.stores.word_stems import word_stems

PASSAGE_PROPERTIES = ["document_id", "text", "start", "end", "title", "metadata"]
PLACE_PROPERTIES = ["document_id", "document_digest", "siblings"]


def objects_of(documents: Sequence[PreparedDocument]) -> list[Any]:
    """One object per passage, the first passage of each document last.

    So a first passage that is there stands for a document that is whole: documents and their
    passages can be counted by it.
    """
    objects = [
        DataObject(
            uuid=passage.id,
            properties={**fields_of(document, ordinal), "words": word_stems(passage.text)},
            vector=document.vectors[ordinal],
        )
        for document in documents
        for ordinal, passage in enumerate(document.passages)
    ]
    return sorted(objects, key=lambda each: each.properties["ordinal"] == 0)


def passage_of_properties(id_: str, properties: Mapping[str, Any]) -> Passage:
    """The passage of an object by its id and its `PASSAGE_PROPERTIES`."""
    return Passage(
        id=id_,
        document_id=properties["document_id"],
        text=properties["text"],
        start=int(properties["start"]),
        end=int(properties["end"]),
        title=properties["title"] or "",
        metadata=json.loads(properties["metadata"]),
    )


def stored_passage_of_object(found: Any) -> StoredPassage:
    """The passage of an object that the client gives, with `ordinal` and `siblings`."""
    properties = found.properties
    passage = passage_of_properties(str(found.uuid), properties)
    return StoredPassage(passage, int(properties["ordinal"]), int(properties["siblings"]))


@dataclass(frozen=True)
class Held:
    """What a collection holds of documents."""

    whole: dict[str, str]
    """Content digests of the documents of which all passages are there, by id."""
    parts: dict[str, list[str]]
    """Ids of the passages of the others, by document id."""


async def held_of(pages: AsyncIterator[Iterable[Any]]) -> Held:
    """Tells whole documents from others, by objects that have `PLACE_PROPERTIES`."""
    passages: dict[str, dict[tuple[str, int], list[str]]] = {}
    async for page in pages:
        for found in page:
            properties = found.properties
            kind = (properties["document_digest"], int(properties["siblings"]))
            kinds = passages.setdefault(properties["document_id"], {})
            kinds.setdefault(kind, []).append(str(found.uuid))
    whole, parts = {}, {}
    for document, kinds in passages.items():
        (digest, siblings), ids = next(iter(kinds.items()))
        if len(kinds) == 1 and len(ids) == siblings:
            whole[document] = digest
        else:
            parts[document] = [id_ for ids in kinds.values() for id_ in ids]
    return Held(whole, parts)
