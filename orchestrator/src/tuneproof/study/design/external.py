"""Identities of services that run elsewhere, as these describe themselves."""

from __future__ import annotations

from pathlib import Path

from tuneproof.rubrics import Rubric
from tuneproof.sdk import Endpoints, GeneratorClient, JudgeClient
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import NotFound
from tuneproof.study.design.identity import Identities, Sources, one_a_criterion
from tuneproof.study.design.spec import StudySpec


async def identify_services(spec: StudySpec, endpoints: Endpoints, sources: Sources) -> Identities:
    """Asks generator and judge what they are.

    A generator knows its model's name and the digests of config, tokenizer and chat template, not
    of the weights: new weights need a new name, or other files.

    Raises:
        Unavailable: one cannot be reached.
        NotFound: the judge lacks a rubric of the study.
    """
    async with GeneratorClient(endpoints.target("generator"), token=endpoints.token) as generator:
        pool = await generator.pool()
    content = [pool.base_model, pool.config_digest, pool.tokenizer_digest]
    model = sha256_of_json([*content, pool.chat_template_digest, pool.dtype])
    judged = spec.judge is not None
    target = endpoints.target("judge")
    return Identities(
        model_name=pool.base_model,
        model=model,
        judge=f"{sources.judge_model} behind {target}" if judged else "",
        judge_name=sources.judge_model if judged else "",
        rubrics=await rubrics_of_judge(spec, endpoints),
        self_judged=False,
        toy=spec.services.toy and Path(spec.services.model).name == pool.base_model,
    )


async def rubrics_of_judge(spec: StudySpec, endpoints: Endpoints) -> tuple[Rubric, ...]:
    """The study's rubrics as the judge has them.

    Raises:
        Unavailable: the judge cannot be reached.
        NotFound: it lacks one of them.
        InvalidInput: two of them score the same criterion.
    """
    if spec.judge is None:
        return ()
    async with JudgeClient(endpoints.target("judge"), token=endpoints.token) as judge:
        known = {rubric.id: rubric for rubric in await judge.rubrics()}
    lacking = [name for name in spec.judge.rubrics if name not in known]
    if lacking:
        raise NotFound(
            f"the judge lacks the rubric {', '.join(lacking)}; it has {', '.join(sorted(known))}"
        )
    return one_a_criterion([known[name] for name in spec.judge.rubrics])
