"""The model card of an adapter: README.md, with the header that the hub reads."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tuneproof.adapters.fingerprint import FINGERPRINT, fingerprint_of
from tuneproof.adapters.likeness import compare

_LICENCE = (
    "Not stated: whoever publishes this adapter chooses one that the base's licence and the data's"
    " allow, and writes it into the header (`license:`)."
)


def card_of(adapter_name: str, facts: Mapping[str, str]) -> str:
    """The card.

    Args:
        facts: the provenance; its fingerprint is told in words, if there is one.
    """
    hyperparameters = json.loads(facts["hyperparameters"])
    told = {name: value for name, value in facts.items() if name not in _APART}
    return f"""---
library_name: peft
base_model: {facts["base_model"]}
tags:
- lora
- tuneproof
---

# {adapter_name}

A LoRA adapter of {facts["base_model"]}, tuned on {facts["examples"]} conversations
({facts["answer_tokens"]} tokens of answers) in {facts["steps"]} steps; the loss went from
{facts["first_loss"]} to {facts["final_loss"]}.

Load it with `peft.PeftModel.from_pretrained(base, folder)`.

## Precision

In training the base's precision was {facts["base_precision"]}, the computation's
{facts["compute_precision"]}, the adapter's {facts["adapter_precision"]}. Over a base of another
precision the adapter answers differently: compare before you serve it so.

## Fingerprint

{_of_fingerprint(facts)}

## Licence

{_LICENCE}

## Hyper-parameters

| name | value |
|---|---|
{_rows(hyperparameters)}

## Provenance

| what | value |
|---|---|
{_rows(told)}
"""


_APART = frozenset({"hyperparameters", FINGERPRINT})


def _of_fingerprint(facts: Mapping[str, str]) -> str:
    """What the adapter does over each base that it was read over, and how far these differ."""
    found = fingerprint_of(facts)
    if found is None:
        return "None was taken."
    lines = [
        (
            f"On {len(found.probes)} fixed questions the adapter moves the log-probabilities of"
            " fixed tokens by, on average:"
        ),
        "",
        *(
            f"- {one.effect:.4g} nat a token over the base in {one.precision}"
            for one in found.readings
        ),
    ]
    if len(found.readings) > 1:
        beside = compare(found, found.trained.base, found.trained.adapted, found.nearest.precision)
        lines += [
            "",
            (
                f"The two effects differ by {beside.effect_difference:.4g} nat a token: so much the"
                " adapter changes when it is served over the unquantised base."
            ),
        ]
    return "\n".join(lines)


def _rows(values: Mapping[str, object]) -> str:
    return "\n".join(f"| {name} | {_cell(value)} |" for name, value in sorted(values.items()))


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`".replace("|", "\\|") if text else ""
