"""What callers may ask for. Every refusal names the field, its value and the limit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from tuneproof.servicekit.errors import InvalidInput
from tuneproof_retriever.corpus import Chunking, ChunkingStrategy, Document

DEFAULT_K = 5
DEFAULT_ALPHA = 0.5
MAX_DOCUMENTS_PER_MESSAGE = 1000
MAX_REJECTED_LISTED = 1000
MAX_PASSAGES_PER_DOCUMENT = 200_000

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_DEFAULT_MAX_TOKENS = 256
_LEAST_MAX_TOKENS = 8
_MAX_K = 1000
_MAX_RERANK_DEPTH = 1000
_DEFAULT_RERANK_DEPTH = 20
_MAX_QUERY_CHARACTERS = 32_768
_MAX_ENTRIES = 64
_MAX_KEY_CHARACTERS = 128
_MAX_VALUE_CHARACTERS = 4096
_MAX_ID_CHARACTERS = 512
_MAX_TITLE_CHARACTERS = 4096
_MAX_REQUEST_ID_CHARACTERS = 128
_MAX_TEXT_BYTES = 10_000_000


def check_name(name: str, field: str) -> str:
    """A corpus's name; it is safe as the name of a folder."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{field} is {_shown(name)}; a corpus's name has 1 to 63 characters of a-z, 0-9 and -,"
            " and begins with a letter",
            field=field,
        )
    return name


def check_request_id(request_id: str) -> str:
    """A caller's mark for the logs."""
    return _check_length(request_id, _MAX_REQUEST_ID_CHARACTERS, "request_id")


def check_entries(entries: Mapping[str, str], field: str) -> dict[str, str]:
    """Labels, metadata or a filter."""
    if len(entries) > _MAX_ENTRIES:
        raise InvalidInput(
            f"{field} has {len(entries)} entries, more than {_MAX_ENTRIES}", field=field
        )
    for key, value in entries.items():
        if not 1 <= len(key) <= _MAX_KEY_CHARACTERS:
            raise InvalidInput(
                f"{field} has the key {_shown(key)}; keys have 1 to {_MAX_KEY_CHARACTERS}"
                " characters",
                field=field,
            )
        _check_length(value, _MAX_VALUE_CHARACTERS, field, f"[{key!r}]")
    return dict(entries)


def check_chunking(
    max_tokens: int,
    overlap_tokens: int,
    embedder_max_tokens: int,
    by: ChunkingStrategy = ChunkingStrategy.TOKENS,
) -> Chunking:
    """Chunking that the embedder can read; 0 for `max_tokens` is the default."""
    limit = max_tokens or min(_DEFAULT_MAX_TOKENS, embedder_max_tokens)
    if not _LEAST_MAX_TOKENS <= limit <= embedder_max_tokens:
        raise InvalidInput(
            f"chunking.max_tokens is {max_tokens}; this embedder takes {_LEAST_MAX_TOKENS} to"
            f" {embedder_max_tokens}",
            field="chunking.max_tokens",
        )
    if overlap_tokens >= limit:
        raise InvalidInput(
            f"chunking.overlap_tokens is {overlap_tokens}; it must be below max_tokens, {limit}",
            field="chunking.overlap_tokens",
        )
    return Chunking(limit, overlap_tokens, by)


def check_document(document: Document) -> None:
    """Checks a document, as far as that needs no tokens."""
    if not document.id.strip() or len(document.id) > _MAX_ID_CHARACTERS:
        raise InvalidInput(
            f"document id is {_shown(document.id)}; it has 1 to {_MAX_ID_CHARACTERS} characters"
            " and is not blank",
            field="documents.id",
        )
    if not document.text.strip():
        raise InvalidInput(
            f"document {_shown(document.id)} has a blank text; leave it out", field="documents.text"
        )
    size = len(document.text.encode())
    if size > _MAX_TEXT_BYTES:
        raise InvalidInput(
            f"document {_shown(document.id)} has {size} bytes of text, more than"
            f" {_MAX_TEXT_BYTES}; split it",
            field="documents.text",
        )
    if len(document.title) > _MAX_TITLE_CHARACTERS:
        # Each passage holds it.
        raise InvalidInput(
            f"document {_shown(document.id)} has a title of {len(document.title)} characters, more"
            f" than {_MAX_TITLE_CHARACTERS}; shorten it",
            field="documents.title",
        )
    check_entries(document.metadata, "documents.metadata")


def check_query(query: str) -> str:
    """A query's text."""
    if not query.strip():
        raise InvalidInput("query is blank", field="query")
    return _check_length(query, _MAX_QUERY_CHARACTERS, "query")


def check_k(k: int) -> int:
    """Number of passages wanted; 0 is the default."""
    if not 0 <= k <= _MAX_K:
        raise InvalidInput(f"k is {k}, not 1 to {_MAX_K}", field="k")
    return k or DEFAULT_K


def check_rerank_depth(depth: int, k: int) -> int:
    """Number of passages that are read again; 0 is the default."""
    if depth and not k <= depth <= _MAX_RERANK_DEPTH:
        raise InvalidInput(
            f"rerank.depth is {depth}, not k ({k}) to {_MAX_RERANK_DEPTH}", field="rerank.depth"
        )
    return depth or max(_DEFAULT_RERANK_DEPTH, k)


def check_alpha(alpha: float) -> float:
    """Weight of the dense list."""
    if not (math.isfinite(alpha) and 0 <= alpha <= 1):
        raise InvalidInput(f"alpha is {alpha}, not 0 to 1", field="alpha")
    return alpha


def _check_length(text: str, limit: int, field: str, key: str = "") -> str:
    if len(text) > limit:
        raise InvalidInput(
            f"{field}{key} has {len(text)} characters, more than {limit}", field=field
        )
    return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
