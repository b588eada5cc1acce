"""The report for machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from tuneproof.analysis import (
    RULES,
    CellCost,
    Comparisons,
    Repeats,
    Summary,
    costs_by_cell,
    failure_counts,
    failures_by_cell,
    means_by_cell,
    repeats_by_cell,
    strata_of,
)
from tuneproof.report.caveats import warnings
from tuneproof.report.findings import findings, headline
from tuneproof.report.support import support_json
from tuneproof.results import Cell, StudyResults

SCHEMA = "tuneproof.report/2"
"""Changes when a key goes or changes its meaning; a new key does not change it."""

_JSON: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def report_json(results: StudyResults, comparisons: Comparisons) -> dict[str, Any]:
    """The study as JSON values: everything but the answers themselves. Numbers are finite.

    Keys: `schema`; `study` (name, description, dataset, items, clusters, judge_model,
    reference_style, and the flags synthetic, gold_only, toy_model, self_judged); `verdict`
    (headline; cells: each cell, label, arm, size, seed, by, direction of `findings.Direction`,
    phrase, sentences, tuned); `warnings` (kind caution | note, text); `intervals` (confidence,
    adjusted_confidence, adjustment bonferroni | holm | sequence, look); `comparisons` and
    `exploratory` (each: cell, against, measure, scale {name, low, high or null, unit, decimals},
    by, items, clusters, mean, mean_against, difference, standard_error, degrees_of_freedom,
    interval {low, high, confidence, method} or null, scored_interval likewise, margin, verdict,
    within_margin, words, non_inferior, unscored, unscored_against, bounds [low, high] or null);
    `support` (each primary comparison: cell, against, measure, tipping_point or null, anchored or
    null {verdict, within_margin, words, difference, standard_error, degrees_of_freedom, interval or
    null, judge_weight, judge_bias, labels, clusters, pairs, identical, raters}, guaranteed or null
    {lower, points, severe_loss {share, upper, tail, items, losses, effective_items}}); `agreement`
    (each labelled criterion: criterion, raters, answers, judge_kappa, between_kappa or null,
    self_kappa or null, by_arm and by_length, each: group, bias, answers, interval or null;
    per_doubling {value, standard_error, degrees_of_freedom} or null); `contrasts` (each: kind slope
    | bend | models | passages | by_heart | wins, name, measure, value, interval or null, items);
    `preferences` (each pair that the judge compared: cell, against, criterion, net, interval or
    null, position, position_interval or null, ties, reversed, items, unscored); `recipes` (each of
    several seeds: model, arm, size, measure, difference, standard_error, degrees_of_freedom,
    seed_means, seed_variance, interval and next_seed or null, verdict or null, words); `cells`
    (name, label, arm, size, seed, tuned, model, answers, errors, seconds_per_answer (in the batch),
    cost {prompt_tokens, completion_tokens, alone {answers, seconds, first_token_seconds,
    cached_share} or null, price or null, by tokens | gpu}, repeats {asked, lost}, adapter or null,
    forgetting (each: task, metric, value, standard_error or null, samples), means by measure {mean,
    standard_deviation, scored, unscored}); `models` (name, content, baseline, is_api, input_price,
    output_price, refused); `strata` (each kind of question: name retrieved | missed | unanswerable
    | unknown | by_heart | not_by_heart, model, items, clusters, refusal_is_right, cells by name
    {answered, refused, means}); `failures` (rules: each name, label, text; cells by name: answers
    that break each rule); `checks` (reader, judge, length: the results' own fields); `retrieval` or
    null; `provenance`; `stage_seconds`; `prices` (currency, gpu_hour, of a million prompt_tokens
    and completion_tokens) or null.
    """
    found = findings(results, comparisons)
    value = {
        "schema": SCHEMA,
        "study": {
            **_fields(results, "name", "description", "dataset"),
            "items": len(results.items),
            "clusters": len({item.cluster for item in results.items}),
            **_fields(results, "judge_model", "reference_style", "synthetic", "gold_only"),
            **_fields(results, "toy_model", "self_judged"),
        },
        "verdict": {"headline": headline(found), "cells": found},
        "warnings": warnings(results, comparisons),
        "intervals": _fields(
            comparisons, "confidence", "adjusted_confidence", "adjustment", "look"
        ),
        "comparisons": comparisons.primary,
        "exploratory": comparisons.exploratory,
        **support_json(results, comparisons),
        "cells": cell_facts(results),
        "models": results.models,
        "strata": strata_of(results),
        "failures": {"rules": RULES, "cells": failure_counts(failures_by_cell(results))},
        "checks": {
            "reader": results.reader_checks,
            "judge": results.judge_checks,
            "length": results.length_probes,
        },
        **_fields(results, "retrieval", "provenance", "stage_seconds", "prices"),
    }
    return json_values(value)


def json_values(value: Mapping[str, Any]) -> dict[str, Any]:
    """Dataclasses and enums among the values as what JSON has."""
    plain: dict[str, Any] = _JSON.dump_python(dict(value), mode="json")
    return plain


def cell_facts(results: StudyResults) -> list[dict[str, Any]]:
    """The key `cells` of the report, before it becomes JSON."""
    means, repeats = means_by_cell(results), repeats_by_cell(results)
    costs = costs_by_cell(results)
    return [
        _cell(results, cell, means[cell.name], repeats[cell.name], costs[cell.name])
        for cell in results.cells
    ]


def _fields(value: object, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _cell(
    results: StudyResults,
    cell: Cell,
    means: Mapping[str, Summary],
    repeats: Repeats,
    cost: CellCost,
) -> dict[str, Any]:
    answers = [answer for answer in results.answers if answer.cell == cell.name]
    timed = [answer.seconds for answer in answers if answer.grade or not answer.error]
    return {
        **_fields(cell, "name", "label", "arm", "size", "seed", "tuned", "model"),
        "answers": len(answers),
        "errors": sum(bool(answer.error) for answer in answers),
        "seconds_per_answer": sum(timed) / len(timed) if timed else None,
        "forgetting": cell.forgetting,
        "cost": cost,
        "repeats": repeats,
        "adapter": cell.training.adapter_ref if cell.training else None,
        "means": means,
    }
