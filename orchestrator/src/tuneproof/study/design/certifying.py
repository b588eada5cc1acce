"""Whether the judge has the certificates that a study asks for, before anything is spent."""

from __future__ import annotations

from tuneproof.results.certificate import read_certificate, why_not_certified
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.study.design.identity import Identities
from tuneproof.study.design.spec import StudySpec


def check_certificates(spec: StudySpec, identities: Identities) -> None:
    """Checks the judge by the certificates that the study file names; without any, nothing.

    Raises:
        InvalidInput: one cannot be read, or none speaks for the judge by one of the rubrics.
    """
    if spec.judge is None or not spec.judge.certificates:
        return
    certificates = [read_certificate(path) for path in spec.judge.certificates]
    for rubric in identities.rubrics:
        problem = why_not_certified(
            certificates,
            judge_model=identities.judge_name,
            rubric_digest=rubric.digest,
            kappa=spec.judge.kappa,
        )
        if problem:
            raise InvalidInput(
                f"{rubric.id}: {problem}; `tuneproof judge calibrate --rubric {rubric.id}` writes"
                " one, or leave out `judge.certificates`",
                field="judge.certificates",
            )
