"""Reading a study back from its state, without a service."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from tuneproof.data.evaluation import has_gold, is_gold, retrieval_quality
from tuneproof.data.items import Item
from tuneproof.prompts import PROMPT_DIGEST, PROMPT_ID
from tuneproof.results import (
    Answer,
    Cell,
    Grade,
    ItemResult,
    JudgeCheck,
    LengthProbe,
    Model,
    Prices,
    Rating,
    ReaderCheck,
    Retrieved,
    StudyResults,
    pair_digest,
)
from tuneproof.sdk.runs import PRECISIONS
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.study.design.spec import RetrievalSpec
from tuneproof.study.state.codec import StoredPassage, grade_from_json, training_from_json
from tuneproof.study.state.store import N, Task
from tuneproof.study.steps.answering import pool_task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.checks import answers_as_forms, judge_check, reader_check
from tuneproof.study.steps.comparing import preferences
from tuneproof.study.steps.forgetting import failures_of, forgetting_tasks, scores_of
from tuneproof.study.steps.probing import length_probes
from tuneproof.study.steps.timing import alone_of, timed_tasks


def load_results(chain: Chain) -> StudyResults:
    """What the study found so far; an answer that is missing says why.

    Raises:
        InvalidInput: the study file compares by something that nothing measures.
    """
    plan, identities = chain.plan, chain.identities
    passages = chain.searches.passages()
    answers = _answers(chain)
    labels, stale = _labels(chain, answers)
    models = sorted({a.grade.judge_model for a in answers if a.grade and a.grade.criteria})
    return StudyResults(
        name=plan.spec.study,
        description=plan.spec.description,
        dataset=plan.dataset.name,
        synthetic=plan.dataset.synthetic,
        gold_only=plan.dataset.gold_only,
        toy_model=identities.toy,
        judge_model=(models[0] if models else identities.judge_name) if identities.judge else "",
        self_judged=identities.self_judged or _judges_itself(chain, models),
        reference_style=plan.spec.references,
        items=tuple(
            _item(item, plan.clusters[item.id], passages.get(item.id, ())[: plan.spec.retrieval.k])
            for item in plan.asked
        ),
        cells=_cells(chain),
        baseline=plan.baseline.name,
        answers=answers,
        retrieval=retrieval_quality(plan.test, passages, k=plan.spec.retrieval.depth),
        reader_checks=_reader_checks(chain),
        judge_checks=_judge_checks(chain, answers),
        primary=plan.primary(identities.measures),
        margin=dict(plan.spec.comparison.margin),
        confidence=plan.spec.comparison.confidence,
        adjustment=plan.spec.comparison.adjustment,
        notes=(*_notes(chain, answers, models), *stale),
        provenance=_provenance(chain),
        stage_seconds=chain.state.seconds(plan.spec.study),
        criteria=identities.measures,
        prices=_prices(chain),
        models=_models(chain),
        labels=labels,
        looks=plan.looks,
        length_probes=_length_probes(chain),
        preferences=preferences(chain),
    )


def _prices(chain: Chain) -> Prices | None:
    values = chain.plan.spec.costs.model_dump(exclude={"timed"}, exclude_none=True)
    priced = any(api.input_price is not None for api in chain.plan.spec.apis)
    return Prices(**values) if len(values) > 1 or priced else None


def _judges_itself(chain: Chain, judges: list[str]) -> bool:
    bases = {chain.identities.of(base.name).served for base in chain.plan.spec.bases}
    return bool(judges) and set(judges) <= (bases or {chain.identities.model_name})


def model_name(chain: Chain, model: str) -> str:
    """What results call a model: as the study file does; where that lists none, its served name."""
    return model or chain.identities.model_name


def _models(chain: Chain) -> tuple[Model, ...]:
    apis = {api.name: api for api in chain.plan.spec.apis}
    found = []
    for model, baseline in chain.plan.baselines.items():
        api, told = apis.get(model), chain.state.get(pool_task(chain, model).key) or {}
        found.append(
            Model(
                model_name(chain, model),
                chain.identities.of(model).content,
                baseline.name,
                is_api=api is not None,
                input_price=api.input_price if api else None,
                output_price=api.output_price if api else None,
                refused=tuple(told.get("refused", ())),
            )
        )
    return tuple(found)


def _item(item: Item, cluster: str, found: tuple[StoredPassage, ...]) -> ItemResult:
    retrieved = tuple(
        Retrieved(**asdict(passage), gold=is_gold(passage.text, passage.document_id, item))
        for passage in found
    )
    return ItemResult(
        item.id,
        item.question,
        item.references,
        cluster,
        retrieved,
        answerable=item.answerable,
        gold_known=has_gold(item),
    )


def _cells(chain: Chain) -> tuple[Cell, ...]:
    done = chain.state.outputs(chain.training_tasks())
    timed, forgotten = timed_tasks(chain), chain.state.outputs(forgetting_tasks(chain))
    trainings = {name: training_from_json(output) for name, output in done.items()}
    return tuple(
        Cell(
            cell.name,
            cell.label,
            cell.recipe,
            cell.size,
            cell.seed,
            trainings.get(cell.name),
            tuned=cell.tune is not None,
            alone=alone_of(chain.state.outputs(dict(enumerate(timed.get(cell.name, ())))).values()),
            forgetting=scores_of(forgotten.get(cell.name)),
            imported=cell.arm.imported is not None,
            model=model_name(chain, cell.model),
            closed_book=cell.arm.closed_book,
        )
        for cell in chain.plan.cells
    )


def _answers(chain: Chain) -> tuple[Answer, ...]:
    """Each cell's answer to each item, in the plan's order; a missing one says why."""
    works, tasks = chain.answers(), chain.grades()
    asked = {place: work.task for place, work in enumerate(works)}
    outputs, grades = chain.state.outputs(asked), chain.state.outputs(tasks)
    failures, unjudged = _failures(chain, asked), _failures(chain, tasks)
    found: dict[tuple[str, str], Answer] = {}
    for place, work in enumerate(works):
        at = work.cell.name, work.asked.id
        if place not in outputs:
            found[at] = _no_answer(*at, failures.get(place, "not answered yet"))
            continue
        grade = grade_from_json(grades[place]) if place in grades else None
        error = "" if grade else f"not judged: {unjudged.get(place, 'not yet')}"
        found[at] = Answer(*at, **outputs[place], grade=grade, error=error)
    untrained, unfound = _untrained(chain), _unfound(chain)
    without_examples = _failures(chain, chain.searches.neighbour_tasks())
    return tuple(
        found.get((cell.name, item.id))
        or _no_answer(
            cell.name,
            item.id,
            unfound.get(item.id)
            or (
                f"no adapter: {untrained.get(cell.name, 'not trained yet')}"
                if cell.tune is not None
                else f"no examples: {without_examples.get((cell.name, item.id), 'not found yet')}"
            ),
        )
        for cell in chain.plan.cells
        for item in chain.plan.asked
    )


def _labels(
    chain: Chain, answers: tuple[Answer, ...]
) -> tuple[tuple[Rating, ...], tuple[str, ...]]:
    """What people said of these answers, and a note where some of it was said of others."""
    texts = {(one.cell, one.item): one.text for one in answers}
    sheets = chain.state.labels(chain.plan.spec.study)
    ratings = [Rating(**each) for name, sheet in sheets.items() if name for each in sheet]
    kept = tuple(
        one
        for one in ratings
        if one.texts
        == pair_digest(texts.get((one.cell, one.item), ""), texts.get((one.against, one.item), ""))
    )
    gone = len(ratings) - len(kept)
    note = f"{gone} labels are left out: their answers have changed since people rated them."
    return kept, (note,) if gone else ()


def _no_answer(cell: str, item: str, error: str) -> Answer:
    return Answer(cell, item, "", "", 0, 0, 0.0, "", None, error)


def _untrained(chain: Chain) -> dict[str, str]:
    """Why a cell has no adapter, by cell name."""
    tasks = chain.training_tasks()
    waiting = {
        cell.name: "its tuning items are not retrieved yet"
        for cell in chain.plan.tuned
        if cell.name not in tasks
    }
    return waiting | _failures(chain, tasks)


def _unfound(chain: Chain) -> dict[str, str]:
    """Why an item has no passages, by item id."""
    tasks = chain.searches.retrieval_tasks()
    found, failures = chain.state.outputs(tasks), _failures(chain, tasks)
    return {
        item.id: f"no passages: {failures.get(item.id, 'not searched yet')}"
        for item in chain.plan.test
        if item.id not in found
    }


def _failures(chain: Chain, tasks: Mapping[N, Task]) -> dict[N, str]:
    """Why tasks failed, by their names."""
    messages = chain.state.failures(task.key for task in tasks.values())
    return {name: messages[task.key] for name, task in tasks.items() if task.key in messages}


def _reader_checks(chain: Chain) -> tuple[ReaderCheck, ...]:
    spec = chain.plan.spec.checks.reader
    if spec is None:
        return ()
    works, outputs = chain.reader_answers(), chain.state.outputs(chain.reader_grades())
    grades: dict[str, list[Grade]] = {}
    for place, output in outputs.items():
        model = model_name(chain, works[place].cell.model)
        grades.setdefault(model, []).append(grade_from_json(output))
    checks = [reader_check(spec.facts, found, model) for model, found in grades.items()]
    return tuple(check for check in checks if check is not None)


def _judge_checks(chain: Chain, answers: tuple[Answer, ...]) -> tuple[JudgeCheck, ...]:
    outputs = chain.state.outputs(dict(enumerate(chain.form_grades()[: len(chain.forms)])))
    forms = [(chain.forms[place], grade_from_json(output)) for place, output in outputs.items()]
    given = answers_as_forms(chain.plan, answers) if forms else []
    checks = [judge_check(measure, forms, given) for measure in chain.identities.measures]
    return tuple(check for check in checks if check is not None)


def _length_probes(chain: Chain) -> tuple[LengthProbe, ...]:
    tasks = dict(enumerate(chain.form_grades()[len(chain.forms) :]))
    found = {at: grade_from_json(output) for at, output in chain.state.outputs(tasks).items()}
    both = [(found.get(2 * at), found.get(2 * at + 1)) for at in range(len(chain.probes))]
    measures = chain.identities.measures
    return tuple(one for each in measures for one in length_probes(each, chain.probes, both))


def _notes(chain: Chain, answers: tuple[Answer, ...], models: list[str]) -> tuple[str, ...]:
    notes = list(chain.plan.dataset.notes)
    failed = sum(bool(answer.error) for answer in answers)
    if failed:
        notes.append(
            f"{failed} of {len(answers)} answers are missing or not judged;"
            " the same command tries them again."
        )
        notes += _lost_cells(answers)
    notes += failures_of(chain)
    notes += [
        f"{model.name} does not take the settings {', '.join(model.refused)}: its answers are drawn"
        " with its own."
        for model in _models(chain)
        if model.refused
    ]
    if len(models) > 1:
        notes.append(f"The answers were judged by different models: {', '.join(models)}.")
    return tuple(notes)


def _lost_cells(answers: tuple[Answer, ...]) -> Iterator[str]:
    """Why cells without any usable answer have no verdict."""
    by_cell: dict[str, list[str]] = {}
    for answer in answers:
        by_cell.setdefault(answer.cell, []).append(answer.error)
    for cell, errors in by_cell.items():
        if all(errors):
            yield f"{cell} is not compared: {errors[0]}."


def _provenance(chain: Chain) -> dict[str, str]:
    plan, identities, spec = chain.plan, chain.identities, chain.plan.spec
    corpus = chain.state.get(chain.searches.corpus_task().key) or {}
    found = {
        "study file": sha256_of_json(spec.model_dump(mode="json")),
        "data": f"{plan.dataset.name}, {len(plan.dataset.documents)} documents,"
        f" {plan.documents_digest}",
        "split": f"{len(plan.test)} test and {len(plan.tuning)} tuning questions,"
        f" by document cluster, seed {spec.split.seed}",
        "corpus": f"{corpus.get('passages', 0)} passages, {corpus.get('digest', 'not made yet')}",
        "embedder": f"{corpus.get('embedder', '')} {corpus.get('embedder_digest', '')}".strip(),
        "retrieval": _retrieval_words(spec.retrieval),
        "prompt": f"{PROMPT_ID} {PROMPT_DIGEST}",
        **_of_models(chain),
        "decoding": f"greedy, at most {spec.generation.max_tokens} tokens",
        "judge": _judge_words(chain),
    }
    for arm, given in plan.imported.items():
        found[f"answers of {arm}"] = f"{given.path.name} {given.digest}"
    for rubric in identities.rubrics:
        found[f"rubric {rubric.id}"] = rubric.digest
    found["versions"] = f"tuneproof {_own_version()}, Python {platform.python_version()}"
    return {name: value for name, value in found.items() if value}


def _of_models(chain: Chain) -> dict[str, str]:
    """What is known of each model; with several models each name ends in the model's."""
    found = {}
    for model, baseline in chain.plan.baselines.items():
        known, pool = chain.identities.of(model), chain.state.get(pool_task(chain, model).key) or {}
        of = f" of {model}" if len(chain.plan.baselines) > 1 else ""
        if baseline.is_api:
            refused = ", ".join(pool.get("refused", ()))
            found[f"API model{of}"] = known.content
            found[f"refused settings{of}"] = refused
            continue
        found[f"base model{of}"] = f"{known.served} {known.content}"
        found[f"served in{of}"] = str(pool.get("dtype", ""))
        found[f"trained in{of}"] = _trained_in(chain, model)
        found[f"engine{of}"] = str(pool.get("engine_version", ""))
        found[f"chat template{of}"] = str(pool.get("chat_template_digest", ""))
    return found


def _retrieval_words(spec: RetrievalSpec) -> str:
    words = ", ".join(f"{k} {v}" for k, v in spec.model_dump(exclude={"rerank"}).items())
    if spec.rerank is None:
        return words
    return f"{words}, the best {spec.rerank_depth} reranked by {spec.rerank.model}"


def _judge_words(chain: Chain) -> str:
    judge = chain.plan.spec.judge
    if judge is None:
        return "none: lexical scores only"
    name = chain.identities.judge_name
    mode = "" if judge.mode == "sampled" else f"{judge.mode}, "
    mode += "all criteria in one form, " if judge.joint else ""
    fewer = f" ({judge.settled_after} where these agree)" if judge.settled_after else ""
    return (
        f"{name}, {mode}{judge.repeats} repeats{fewer} at temperature {judge.temperature:g}, seed"
        f" {judge.seed}"
    )


def _trained_in(chain: Chain, model: str) -> str:
    words = {
        ", ".join(f"{name} {facts[name]}" for name in PRECISIONS if name in facts)
        for cell in _cells(chain)
        if cell.model == model_name(chain, model)
        if cell.training and (facts := cell.training.provenance)
    }
    return "; ".join(sorted(words - {""}))


def _own_version() -> str:
    try:
        return version("tuneproof")
    except PackageNotFoundError:
        return "unknown"
