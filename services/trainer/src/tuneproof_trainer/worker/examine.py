"""What a run's data is as tokens: `python -m tuneproof_trainer.worker.examine`.

Reads a job and a spec as JSON from standard input and writes what it found as JSON to standard
output. A process of its own, because transformers, which knows the tokenizer, loads torch (5.19)
and takes memory and a processor that the service needs for its calls.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuneproof.adapters.storage import open_storage
from tuneproof.servicekit.errors import InvalidInput, TuneproofError
from tuneproof_trainer.data import Example
from tuneproof_trainer.examples import Examples, read_examples
from tuneproof_trainer.plan.checks import (
    MOST_LINES,
    Finding,
    find_duplicates,
    find_leaks,
    find_shared,
)
from tuneproof_trainer.plan.examination import Examined, Piece, Preview, Request
from tuneproof_trainer.spec import RunSpec
from tuneproof_trainer.worker.tokens import ChatTokenizer, Sequences, end_of, tokenise_one

Looked = list[tuple[Example, Sequences]]


def main() -> int:
    """The program."""
    request = Request.model_validate_json(sys.stdin.buffer.read())
    try:
        found = examine(request)
    except TuneproofError as error:
        answer = {
            "error": error.message,
            "field": error.field if isinstance(error, InvalidInput) else "",
        }
    else:
        answer = asdict(found)
    print(json.dumps(answer))
    return 0


def examine(request: Request) -> Examined:
    """What a spec's data is as tokens.

    Raises:
        InvalidInput: when the data cannot be read, the base has no chat template, or a line to
            show has no example.
        Unavailable: when the artifact store does not answer.
    """
    spec = request.spec
    examples = read_examples(open_storage(request.artifacts), spec)
    from transformers import AutoTokenizer  # noqa: PLC0415 - wrong data is told before it

    tokenizer = AutoTokenizer.from_pretrained(Path(request.base_folder))
    eos = end_of(tokenizer)
    most = spec.hyperparameters.max_length

    def look(some: Sequence[Example]) -> Looked:
        return [(each, tokenise_one(tokenizer, each, eos)) for each in some]

    training, validation = look(examples.training), look(examples.validation)
    kept = [one for _, one in training if len(one.input_ids) <= most]
    prompt = sum(one.prompt_length for one in kept)
    lengths = [len(one.input_ids) for one in kept]
    return Examined(
        lengths=lengths,
        answers=[len(one.input_ids) - one.prompt_length for one in kept],
        validation_examples=sum(len(one.input_ids) <= most for _, one in validation),
        dropped_examples=len(training) - len(kept),
        prompt_tokens=prompt,
        answer_tokens=sum(lengths) - prompt,
        findings=list(_findings(spec, examples, training, validation, tokenizer)),
        previews=list(_previews(tokenizer, [*training, *validation], request.preview_lines)),
    )


def _findings(
    spec: RunSpec,
    examples: Examples,
    training: Looked,
    validation: Looked,
    tokenizer: Any,
) -> Iterator[Finding]:
    yield from _lengths(spec, training, "data")
    yield from _lengths(spec, validation, "validation")
    if examples.held_out:
        for some in (examples.training, examples.validation):
            yield from find_leaks(some, examples.held_out, allowed=spec.allow_leakage)
    yield from find_shared(examples.training, examples.validation)
    yield from find_duplicates(examples.training)
    yield from _template(training, tokenizer)


def _lengths(spec: RunSpec, looked: Looked, part: str) -> Iterator[Finding]:
    most = spec.hyperparameters.max_length
    long = [(each.line, len(one.input_ids)) for each, one in looked if len(one.input_ids) > most]
    if not long:
        return
    drops = spec.hyperparameters.too_long == "drop" and len(long) < len(looked)
    longest = max(length for _, length in long)
    yield Finding(
        "too_long",
        f"{len(long)} of {len(looked)} examples of {part} have more than {most} tokens, up to"
        f" {longest}: "
        + ("they are left out" if drops else "the run refuses them; nothing is cut"),
        refused=not drops,
        lines=tuple(line for line, _ in long[:MOST_LINES]),
    )


def _template(looked: Looked, tokenizer: Any) -> Iterator[Finding]:
    eos = end_of(tokenizer)
    apart = [each.line for each, one in looked if one.apart]
    if apart:
        yield Finding(
            "template",
            f"the chat template writes {len(apart)} conversations otherwise than serving's prompt"
            " with the answer after it: trained is the prompt as it is served, and the answer's own"
            " tokens",
            lines=tuple(apart[:MOST_LINES]),
        )
    others = sorted(set(tokenizer.all_special_ids) - {eos})
    inside = [
        each.line
        for each, one in looked
        if any(token in others for token in one.input_ids[one.prompt_length :])
    ]
    if inside and len(inside) == len(looked):
        first = looked[0][1]
        written = next(token for token in first.input_ids[first.prompt_length :] if token in others)
        yield Finding(
            "end_of_answer",
            f"every answer holds {tokenizer.convert_ids_to_tokens(written)!r} before the end of"
            f" sequence {tokenizer.convert_ids_to_tokens(eos)!r}: if the template ends answers with"
            " it, make it the eos_token of the tokenizer, or serving goes on after it",
        )
    unended = [each.line for each, one in looked if one.input_ids[-1] != eos]
    if unended:
        yield Finding(
            "end_not_learned",
            f"the last token of {len(unended)} examples is not the end of sequence",
            refused=True,
            lines=tuple(unended[:MOST_LINES]),
        )


def _previews(
    tokenizer: ChatTokenizer | Any, looked: Looked, lines: Sequence[int]
) -> Iterator[Preview]:
    by_line: dict[int, Sequences] = {}
    for each, one in looked:
        by_line.setdefault(each.line, one)
    for line in lines or [looked[0][0].line]:
        if line not in by_line:
            raise InvalidInput(f"the data has no example at line {line}", field="preview_lines")
        one = by_line[line]
        learned = [False] * one.prompt_length + [True] * len(one.labels[one.prompt_length :])
        texts = texts_of(tokenizer, one.input_ids)
        yield Preview(
            line,
            [
                Piece(token, text, seen)
                for token, text, seen in zip(one.input_ids, texts, learned, strict=True)
            ],
        )


def texts_of(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token; together they are the text of all. A token that ends within a
    character has what is whole by then, and the next one the rest."""
    texts: list[str] = []
    start = told = 0
    before = ""
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[start:end], clean_up_tokenization_spaces=False)
        if whole.endswith("\ufffd") and end < len(ids):
            texts.append("")
            continue
        texts.append(whole[len(before) :])
        # The last token stays in the window: what one is written as depends on the one before it.
        start, told = told, end
        before = tokenizer.decode(ids[start:end], clean_up_tokenization_spaces=False)
    return texts


if __name__ == "__main__":
    raise SystemExit(main())
