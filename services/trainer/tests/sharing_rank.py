"""One of two processes that share trainings: `python sharing_rank.py RANK PORT BASE TARGET`.

Together with the test's own process, which trains the same alone, it imports torch once for all.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

if __package__:
    from .training_runs import Trained, example
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from training_runs import Trained, example

EXAMPLES = [
    example(" ".join(f"w{(n * k) % 50}" for k in range(1, 3 + n % 7)), f"w{n} w{n + 1}", n)
    for n in range(1, 23)
]
CASES = {
    # 20 rows of training, 16 a step: the last step of a pass has 4 in two micro-batches, or in one.
    "plain": {"effective_batch_size": 16, "micro_batch_size": 2, "epochs": 2, "validates": 3},
    "blank": {"effective_batch_size": 16, "micro_batch_size": 8, "epochs": 2},
    "padding_free": {"packing": "padding_free", "effective_batch_size": 6, "micro_batch_size": 3},
    "bfd": {"packing": "bfd", "max_length": 24, "effective_batch_size": 4, "micro_batch_size": 2},
    "qlora": {"method": "qlora_nf4", "effective_batch_size": 8, "micro_batch_size": 2},
}


def trained(case: str, base: Path, target: Path) -> Trained:
    """The training of a case, in as many processes as the environment says."""
    asked = dict(CASES[case])
    validation = EXAMPLES[: asked.pop("validates", 0)]
    return Trained(
        base,
        target / case,
        EXAMPLES[:20],
        validation=validation,
        dropout=0.0,
        **{"max_steps": 4, **asked} if "epochs" not in asked else asked,
    )


def main() -> None:
    rank, port, base, target = sys.argv[1:]
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for case in CASES:
        found = trained(case, Path(base), Path(target) / rank)
        validated = found.result.validated
        told = {
            "losses": found.losses,
            "rows": found.result.rows,
            "validated": validated.losses if validated else {},
        }
        told_by = Path(target) / rank / f"{case}.json"
        told_by.parent.mkdir(exist_ok=True)
        told_by.write_text(json.dumps(told))
    os._exit(0)  # As a worker ends.


if __name__ == "__main__":
    main()
