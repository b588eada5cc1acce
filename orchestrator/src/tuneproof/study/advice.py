"""What a plan warns of: what cannot work, and what cannot be concluded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tuneproof.adapters.hyperparameters import Hyperparameters
from tuneproof.adapters.memory import USABLE, TrainingMemory
from tuneproof.study.design.plan import Plan
from tuneproof.study.tokens import CellTokens

FEW_CLUSTERS = 30
"""Test clusters below which intervals are wide, and their coverage is less sure."""
MOST_PRIMARY = 12
"""Primary comparisons above which a plan warns: each widens the intervals of all."""
RECIPE_SEEDS = 3
"""Fewest seeds for a statement about fine-tuning, as the report counts them."""
_LARGEST_SHARE = 0.5
"""Of the pool, that a draw may take before two seeds share most of it."""
GPU_GIB = 80.0
"""Memory of an H100 or a large A100; a training that takes more is warned of."""


def of_draws(plan: Plan) -> Iterator[str]:
    """Draws of pairs that cannot differ between seeds."""
    pool, seeds = len(plan.tuning), len(plan.spec.seeds)
    for size in sorted({cell.size for cell in plan.compared if cell.size}):
        share = size / pool
        if seeds > 1 and share == 1:
            yield (
                f"all {pool} tuning questions make one set of {size}: every seed draws the same,"
                " so seeds differ by the training's luck only"
            )
        elif seeds > 1 and share > _LARGEST_SHARE:
            yield (
                f"two seeds share about {share:.0%} of their {size} questions, because the pool has"
                f" {pool}: they differ less than new questions would"
            )


def of_design(plan: Plan, counts: Mapping[str, int]) -> Iterator[str]:
    """Too few clusters, seeds, or too many comparisons."""
    if counts["test clusters"] < FEW_CLUSTERS:
        yield (
            f"the test has {counts['test clusters']} clusters: below {FEW_CLUSTERS} intervals are"
            " wide, and below 10 there are none; raise split.test_share or take more documents"
        )
    if counts["primary comparisons"] > MOST_PRIMARY:
        yield (
            f"{counts['primary comparisons']} primary comparisons: each widens the intervals of"
            " all; name the few that decide in comparison.primary"
        )
    if plan.tuned and len(plan.spec.seeds) < RECIPE_SEEDS:
        yield (
            f"with {len(plan.spec.seeds)} of {RECIPE_SEEDS} seeds the verdicts are about these"
            " adapters, not about fine-tuning"
        )


def of_length(plan: Plan, tokens: Mapping[str, CellTokens], context: int) -> Iterator[str]:
    """Prompts that the model, or the training, cannot read."""
    answer = plan.spec.generation.max_tokens
    for cell in plan.cells:
        if cell.name not in tokens or cell.is_api:
            continue
        serving, example = tokens[cell.name].serving, tokens[cell.name].example
        if 0 < context < serving.longest + answer:
            yield (
                f"{cell.name}: a prompt with its answer takes up to about"
                f" {serving.longest + answer} tokens; the model reads {context}"
            )
        most = cell.hyperparameters.max_length
        if example.longest > most:
            yield (
                f"{cell.name}: an example takes up to about {example.longest} tokens; max_length is"
                f" {most}, and the trainer refuses longer ones"
            )


def of_memory(plan: Plan, memory: Mapping[str, TrainingMemory]) -> Iterator[str]:
    """Trainings that a GPU has no room for, once for each recipe."""
    told = set()
    for cell in plan.tuned:
        if cell.name not in memory or cell.recipe in told:
            continue
        taken = memory[cell.name].gib
        if taken > USABLE * GPU_GIB:
            told.add(cell.recipe)
            yield (
                f"{cell.name}: its training takes about {taken:,.0f} GiB, more than is safe on a"
                f" GPU of {GPU_GIB:.0f} GB: {_mend(cell.hyperparameters)}"
            )


def _mend(asked: Hyperparameters) -> str:
    if asked.micro_batch_size > 1:
        either = "" if asked.gradient_checkpointing else ", or set gradient_checkpointing"
        return f"lower micro_batch_size{either}"
    if asked.micro_batch_size and not asked.gradient_checkpointing:
        return "set gradient_checkpointing"
    return "it needs a larger GPU, or a smaller base"
