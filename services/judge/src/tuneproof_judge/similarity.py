"""Scores by models that were not made to judge: embedding similarity and BERTScore, as options."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import openai

from tuneproof.servicekit.errors import InvalidInput, Unavailable, WrongState
from tuneproof.servicekit.http import without_credentials

_TOO_LONG = frozenset({400, 413, 422})
"""How servers refuse a text that is too long for their model."""
_ATTEMPTS = 4


class Similarity(Protocol):
    """How near an answer is to a reference."""

    @property
    def name(self) -> str:
        """The field of `LexicalScores`."""

    async def score(self, answer: str, references: Sequence[str]) -> float | None:
        """The best over the references; None where the model does not take the texts.

        Raises:
            Unavailable, WrongState: the model cannot be asked.
        """


class EmbeddingSimilarity:
    """Cosine of whole texts' embeddings, by a server that speaks OpenAI's protocol, as Text
    Embeddings Inference and vLLM do; -1 to 1. An answer without text scores 0.

    Args:
        api_key: the key, or what gives it for each request; empty for a server without one.
    """

    name = "embedding_similarity"

    def __init__(
        self, url: str, model: str, api_key: str | Callable[[], Awaitable[str]], timeout: float
    ) -> None:
        self._url, self._model = without_credentials(url), model
        self._client = openai.AsyncOpenAI(
            base_url=url, api_key=api_key or "none", timeout=timeout, max_retries=_ATTEMPTS - 1
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def score(self, answer: str, references: Sequence[str]) -> float | None:
        if not answer.strip():
            return 0.0
        try:
            found = await self._client.embeddings.create(
                model=self._model, input=[answer, *references], encoding_format="float"
            )
        except openai.APIStatusError as error:
            if error.status_code in _TOO_LONG:
                return None
            if error.status_code in (401, 403, 404):
                raise WrongState(
                    f"the embedding server {self._url} answers HTTP {error.status_code}: compare"
                    " --similarity-url, --similarity-model and --similarity-key-file with what it"
                    " serves",
                    reason="EMBEDDER_REFUSED",
                ) from None
            raise self._away(f"HTTP {error.status_code}") from None
        except openai.APIError as error:
            raise self._away(str(error.__cause__ or error)) from None
        said, *wanted = (each.embedding for each in sorted(found.data, key=lambda one: one.index))
        return max(_cosine(said, each) for each in wanted)

    def _away(self, why: str) -> Unavailable:
        return Unavailable(
            f"the embedding server {self._url} does not answer ({why}, {_ATTEMPTS} attempts)"
        )


class BertScore:
    """BERTScore's F1 (Zhang et al. 2020, "BERTScore: Evaluating Text Generation with BERT",
    equations 1 to 3) without idf weights and without rescaling; -1 to 1.

    Each token of the one text is matched with the nearest of the other, by the cosine of their
    hidden states in one layer. The special tokens at both ends can be matched, and count for
    nothing themselves, as in the package bert-score. A text beyond the model's length is cut, as
    there. An answer without text scores 0.

    Args:
        folder: of an encoder in the format of transformers.
        layer: from 1; bert-score's table names one for each model, as 17 for roberta-large.

    Raises:
        InvalidInput: it cannot be loaded.
    """

    name = "bert_score"

    def __init__(self, folder: Path, layer: int) -> None:
        try:
            import torch  # noqa: PLC0415 - an extra, which takes seconds
            from transformers import (  # noqa: PLC0415
                AutoModel,
                AutoTokenizer,
                GPT2Tokenizer,
                RobertaTokenizer,
            )
        except ImportError:
            raise InvalidInput(
                "BERTScore needs transformers: pip install tuneproof-judge[bertscore]",
                field="bertscore",
            ) from None
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            if isinstance(self._tokenizer, GPT2Tokenizer | RobertaTokenizer):
                # bert-score 0.3.13 asks for a space before the first word with each text, which
                # transformers 5 ignores there.
                self._tokenizer = AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, add_prefix_space=True
                )
            self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError) as error:
            raise InvalidInput(
                f"bertscore {folder} cannot be loaded: {error}", field="bertscore"
            ) from None
        layers = self._model.config.num_hidden_layers
        if not 1 <= layer <= layers:
            raise InvalidInput(
                f"bertscore_layer is {layer}, not 1 to {layers}, the layers of {folder}",
                field="bertscore_layer",
            )
        self._torch, self._layer = torch, layer
        # Where the tokenizer knows no limit, the model's; RoBERTa's positions begin at 2.
        positions = getattr(self._model.config, "max_position_embeddings", 512)
        most = self._tokenizer.model_max_length
        self._most = most if most <= positions else positions - 2
        self._one_at_a_time = threading.Lock()

    async def score(self, answer: str, references: Sequence[str]) -> float | None:
        return await asyncio.to_thread(self.f1, answer, references)

    def f1(self, answer: str, references: Sequence[str]) -> float:
        """The best F1 over the references."""
        with self._one_at_a_time, self._torch.inference_mode():
            said = self._states(answer)
            return max(self._f1(said, self._states(each)) for each in references)

    def _states(self, text: str) -> tuple[Any, Any]:
        """Hidden states of length 1, a row for each token; and which tokens count."""
        encoded = self._tokenizer(
            text.strip(),
            truncation=True,
            max_length=self._most,
            return_tensors="pt",
            return_special_tokens_mask=True,
        )
        counts = encoded.pop("special_tokens_mask")[0] == 0
        states = self._model(**encoded, output_hidden_states=True).hidden_states[self._layer][0]
        return states / states.norm(dim=-1, keepdim=True), counts

    @staticmethod
    def _f1(said: tuple[Any, Any], wanted: tuple[Any, Any]) -> float:
        (rows, counted), (columns, needed) = said, wanted
        if not counted.any() or not needed.any():
            return 0.0
        cosines = rows @ columns.T
        precision = float(cosines.max(dim=1).values[counted].mean())
        recall = float(cosines.max(dim=0).values[needed].mean())
        total = precision + recall
        return 2.0 * precision * recall / total if total else 0.0


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    sizes = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / sizes if sizes else 0.0
