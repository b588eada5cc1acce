"""Answers that people labelled.

    evouna      five systems' answers to NQ questions, right or wrong: evouna/NQ.json of
                github.com/wangcunxiang/QA-Eval
    nq301       answers with two or three annotators each, right or wrong:
                nq301/NQ301_human.tsv of OpenQA-eval
    ragchecker  pairs of answers, -2 to 2 for the second one: ragchecker/human_labeled.json of
                github.com/amazon-science/RAGChecker

Files whose name has `.half` before its ending are found as well. Labels that are missing are
dropped, and counted.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuneproof.servicekit.digests import sha256_of_bytes
from tuneproof.servicekit.errors import InvalidInput

_SYSTEMS = ("fid", "gpt35", "chatgpt", "gpt4", "newbing")
_COLUMNS = ("question", "answer", "reference", "label")


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """One answer."""

    id: str
    question: str
    answer: str
    references: tuple[str, ...]
    system: str
    cluster: str
    """Answers to one question are not independent."""
    label: float | None = None
    """What people say, 1 for right and 0 for wrong, or a score; None where only pairs have one."""
    raters: tuple[float, ...] = ()
    """What each of two people says, where that is known."""
    passages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two answers of which people say which is better."""

    first: str
    """Id of a `LabelledAnswer`."""
    second: str
    cluster: str
    label: float
    """Above 0: the second is better."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Answers with people's labels by one criterion."""

    name: str
    digest: str
    """Of the file."""
    answers: tuple[LabelledAnswer, ...]
    pairs: tuple[LabelledPair, ...] = ()
    dropped: int = 0
    """Labels that are missing."""
    judges: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What other judges said, as the set's authors publish it: by judge and answer."""

    @property
    def binary(self) -> bool:
        """Whether people said right or wrong; else scores."""
        return {one.label for one in self.answers} <= {0.0, 1.0}


def load_set(name: str, data: Path | None, criterion: str) -> LabelledSet:
    """A set by its name, or a CSV file of one's own.

    Args:
        data: the folder that holds the sets.
        criterion: of a set with several, as `completeness`.

    Raises:
        InvalidInput: the file is missing, or not of its format.
    """
    if name not in SETS:
        return _own(Path(name))
    folder, stem, ending, read = SETS[name]
    if data is None:
        raise InvalidInput(
            f"{name} needs the folder of its data: give --data, or set TUNEPROOF_DATA", field="data"
        )
    places = [data / folder / f"{stem}{part}.{ending}" for part in ("", ".half")]
    path = next((each for each in places if each.is_file()), None)
    if path is None:
        raise InvalidInput(f"{places[0]} is missing; `{name}` is read from there", field="data")
    content = path.read_bytes()
    try:
        answers, pairs, dropped = read(content.decode(), criterion)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} is not in the format of {name}: {error!r}") from None
    whole = LabelledSet(name, sha256_of_bytes(content), tuple(answers), tuple(pairs), dropped)
    return replace(whole, judges=_gpt_4(path, whole)) if name == "nq301" else whole


_Read = tuple[list[LabelledAnswer], list[LabelledPair], int]


def _evouna(text: str, _: str) -> _Read:
    answers, dropped = [], 0
    for number, item in enumerate(json.loads(text)):
        for system in _SYSTEMS:
            label = item[f"judge_{system}"]
            if label is None:
                dropped += 1
                continue
            # The golden answers of one question stand in one text; an answer may be missing.
            golden = item["golden_answer"].split("/")
            references = tuple(each.strip() for each in golden if each.strip())
            answers.append(
                LabelledAnswer(
                    f"{number}/{system}",
                    item["question"],
                    item[f"answer_{system}"] or "",
                    references or (item["golden_answer"],),
                    system,
                    str(number),
                    float(label),
                )
            )
    return answers, [], dropped


def _nq301(text: str, _: str) -> _Read:
    answers, dropped = [], 0
    rows = csv.DictReader(text.splitlines(keepends=True), delimiter="\t")
    right: dict[str, list[str]] = {}
    read = list(rows)
    for row in read:
        if row["Acceptable?"] == "Yes" and row["annotator1"] == row["annotator2"] == "Yes":
            right.setdefault(row["id"], []).append(row["Model answer"])
    for number, row in enumerate(read):
        if row["Acceptable?"] not in ("Yes", "No"):
            dropped += 1
            continue
        # The file has no reference answers: another answer that all people accept stands for one.
        others = [each for each in right.get(row["id"], ()) if each != row["Model answer"]]
        raters = [row[f"annotator{n}"] for n in (1, 2)]
        answers.append(
            LabelledAnswer(
                str(number),
                row["Question"],
                row["Model answer"],
                tuple(others[:1]),
                "",
                row["id"],
                float(row["Acceptable?"] == "Yes"),
                tuple(float(each == "Yes") for each in raters) if all(raters) else (),
            )
        )
    return answers, [], dropped


def _gpt_4(people: Path, labelled: LabelledSet) -> dict[str, dict[str, float]]:
    """GPT-4's verdicts on NQ301, where its file lies beside that of people."""
    path = people.with_name(people.name.replace("_human", "_gpt-4"))
    if not path.is_file():
        return {}
    rows = csv.DictReader(path.read_text("utf-8").splitlines(keepends=True), delimiter="\t")
    said = {(row["id"], row["Model answer"]): row["Acceptable?"] == "Yes" for row in rows}
    found = {
        one.id: float(said[one.cluster, one.answer])
        for one in labelled.answers
        if (one.cluster, one.answer) in said
    }
    return {"GPT-4": found}


def _ragchecker(text: str, criterion: str) -> _Read:
    of = {"accuracy": "correctness", "completeness": "completeness"}
    if criterion not in of:
        raise InvalidInput(
            f"ragchecker has labels for {' and '.join(of)}, not for {criterion!r}", field="rubric"
        )
    answers: list[LabelledAnswer] = []
    pairs, dropped = [], 0
    for item in json.loads(text):
        label = item[f"{of[criterion]}_label"]
        if label is None:
            dropped += 1
            continue
        names = []
        cluster = f"{item['dataset']}/{item['query_id']}"
        for which in ("model1", "model2"):
            names.append(f"{item['instance_id']}/{which}")
            system, said = item[which]["model_name"], item[which]["response"]
            answers.append(
                LabelledAnswer(
                    names[-1], item["query"], said, (item["gt_answer"],), system, cluster
                )
            )
        pairs.append(LabelledPair(names[0], names[1], cluster, float(label)))
    return answers, pairs, dropped


SETS: Mapping[str, tuple[str, str, str, Callable[[str, str], _Read]]] = {
    "evouna": ("evouna", "NQ", "json", _evouna),
    "nq301": ("nq301", "NQ301_human", "tsv", _nq301),
    "ragchecker": ("ragchecker", "human_labeled", "json", _ragchecker),
}
"""Folder, name and ending of the file, and what reads it, by the name of the set."""


def _own(path: Path) -> LabelledSet:
    """A CSV file: question, answer, reference, label; and id, system, cluster, label_2, passages
    where there are such columns. Several references or passages stand in one field, each on a line
    of its own."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        known = ", ".join(SETS)
        raise InvalidInput(
            f"{path}: cannot be read: {error.strerror}; name a CSV file, or one of {known}"
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: is not UTF-8 text (byte {error.start})") from None
    rows = csv.DictReader(text.splitlines(keepends=True))
    missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise InvalidInput(f"{path}:1: lacks the column {', '.join(missing)}")
    answers, dropped, mistakes = [], 0, []
    for row in rows:
        if not row["label"]:
            dropped += 1
            continue
        try:
            answers.append(_answer(row, rows.line_num))
        except ValueError as error:
            mistakes.append(f"{path}:{rows.line_num}: {error}")
    names = [one.id for one in answers]
    mistakes += [f"{path}: the id {name!r} appears twice" for name in _twice(names)]
    if mistakes:
        raise InvalidInput("\n".join(mistakes[:20]))
    if not answers:
        raise InvalidInput(f"{path}: has no labelled answer")
    return LabelledSet(path.name, sha256_of_bytes(content), tuple(answers), (), dropped)


def _answer(row: Mapping[str, Any], line: int) -> LabelledAnswer:
    words = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}
    labels = []
    for name in ("label", "label_2"):
        if said := (row.get(name) or "").strip().lower():
            try:
                labels.append(words[said] if said in words else float(said))
            except ValueError:
                raise ValueError(f"{name} is {said!r}, not a number, yes or no") from None
    lines = {
        name: tuple(each for each in (row.get(name) or "").splitlines() if each.strip())
        for name in ("reference", "passages")
    }
    return LabelledAnswer(
        row.get("id") or str(line),
        row["question"],
        row["answer"],
        lines["reference"],
        row.get("system") or "",
        row.get("cluster") or row["question"],
        labels[0],
        tuple(labels) if len(labels) == 2 else (),
        lines["passages"],
    )


def _twice(names: list[str]) -> list[str]:
    return (
        sorted({name for name in names if names.count(name) > 1})
        if len(set(names)) < len(names)
        else []
    )
