"""How often verdicts are wrong, in simulated studies and on real human labels.

    make bench-statistics

Every study goes through the functions that reports use. Each setting prints its figures; the last
line is JSON with one number per bound: `s1_min` is the lowest coverage of all settings of S1, and
so on. `blind` is 0 where the methods of before fail S3, S4 and S6, as they must: the interval alone
as a gate, the judge alone as people, the 95 % interval at every look. Bounds have a slack of four
Monte-Carlo errors, except for the methods of before. The exit code is 1 where a bound is missed.

Sampling, people, plans and gates are in modules of these names. `--out FILE` writes the figures of
each setting too; `plots.py` draws those of docs/statistics.md from it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from gates import s8, s9, s11
from people import of_pairs, s4, s5
from plans import s7, s10
from sampling import s1, s2, s3, s6

Setting = Callable[[np.random.Generator, int], dict[str, float]]

SETTINGS: Mapping[str, tuple[Setting, ...]] = {
    "s1": (s1,),
    "s2": (s2,),
    "s3": (s3,),
    "s4": (partial(s4, part=0), partial(s4, part=1)),
    "s5": (s5,),
    "s6": (s6,),
    "s7": (s7,),
    "s8": (s8,),
    "s9": (s9,),
    "s10": (s10,),
    "s11": (s11,),
}
"""Each in one part or several, so that no worker ends long before others."""
_LONGEST = ("s8", "s4", "s1", "s9", "s7", "s5", "s11", "s2", "s3", "s6", "s10")
STUDIES = 10_000
REQUIRE_ALL = "TUNEPROOF_REQUIRE_ALL"
"""With it, as in CI, data that are missing fail."""


@dataclass(frozen=True)
class Bound:
    """What a figure must keep."""

    least: float = -math.inf
    most: float = math.inf
    share: bool = True
    """Of studies: its Monte-Carlo error is that of a share."""
    by_spread: bool = False
    """A width by a simulated standard error, which is off by 1/√(2n) of itself."""

    def kept(self, value: float, studies: float) -> bool:
        return (
            self.least - self._slack(self.least, studies)
            <= value
            <= self.most + self._slack(self.most, studies)
        )

    def _slack(self, bound: float, studies: float) -> float:
        if self.by_spread and math.isfinite(bound):
            return 4.0 * bound / math.sqrt(2.0 * studies)
        if not 0.0 < bound < 1.0 or not self.share:
            return 0.0
        return 4.0 * math.sqrt(bound * (1.0 - bound) / max(studies, 10.0))


BOUNDS: Mapping[str, Bound] = {
    "s1_min": Bound(least=0.93),
    "s1_width_max": Bound(most=1.10, by_spread=True),
    "s2_min": Bound(least=0.91),
    "s3_max": Bound(most=0.025),
    "s3_pass": Bound(least=0.80),
    "s4_min": Bound(least=0.93),
    "s4_mean": Bound(least=0.94),
    "s4_width_max": Bound(most=1.0, share=False),
    "s5_min": Bound(least=0.925),
    "s5_judge": Bound(most=0.6),
    "s6_max": Bound(most=0.05),
    "s6_equivalent": Bound(most=0.025),
    "s6_items": Bound(most=0.70),
    "s7_min": Bound(least=0.93),
    "s7_three": Bound(least=0.92),
    "s8_max": Bound(most=0.05),
    "s9_max": Bound(most=0.025),
    "s10_min": Bound(least=0.78),
    "s10_max": Bound(most=0.92),
    "s11_max": Bound(most=0.05),
    "s11_rarer": Bound(most=0.02, share=False),
}

BEFORE: Mapping[str, str] = {"s3_before": "s3_max", "s4_before": "s4_min", "s6_before": "s6_max"}
"""What the methods of before reach, and which bound they must miss."""


def main() -> int:
    options = _options()
    studies = options.studies
    print(f"seed {options.seed}, {studies} studies a setting", file=sys.stderr)
    figures: dict[str, float] = {}
    for found, seconds in _all(options):
        figures |= found
        told = ", ".join(f"{key} {value:.4g}" for key, value in found.items() if "/" not in key)
        print(f"{told or 'a half of s4'} ({seconds:.1f} s)", file=sys.stderr)
    if any(key.startswith("s4/") for key in figures):
        summary = of_pairs(figures)
        print(", ".join(f"{key} {value:.4g}" for key, value in summary.items()), file=sys.stderr)
        figures |= summary
    missed = [
        key
        for key, bound in BOUNDS.items()
        if key in figures and not bound.kept(figures[key], studies)
    ]
    if "s4" in options.only and "s4_min" not in figures and os.environ.get(REQUIRE_ALL):
        missed.append("s4_min")
        figures["s4_min"] = math.nan
    blind = [
        key
        for key, bound in BEFORE.items()
        if key in figures and BOUNDS[bound].kept(figures[key], math.inf)
    ]
    for key in missed:
        print(f"{key} misses its bound: {figures[key]:.4g}, {BOUNDS[key]}", file=sys.stderr)
    told = {key: None if math.isnan(value) else round(value, 4) for key, value in figures.items()}
    results = {key: value for key, value in told.items() if "/" not in key}
    head = {"bench": "statistics", "seed": options.seed, "studies": studies}
    bench = {**head, "results": {**results, "blind": len(blind)}}
    if options.out:
        settings = {key: value for key, value in told.items() if "/" in key}
        options.out.write_text(json.dumps({**bench, "settings": settings}, indent=1) + "\n")
    print(json.dumps(bench))
    return 1 if missed or blind else 0


def _all(options: argparse.Namespace) -> Iterator[tuple[dict[str, float], float]]:
    """Each part of a setting as it is done; the longest first."""
    asked = [
        (name, part, options.seed, options.studies)
        for name in sorted(options.only, key=_LONGEST.index)
        for part in range(len(SETTINGS[name]))
    ]
    if options.workers == 1:
        yield from (_timed(*each) for each in asked)
        return
    with ProcessPoolExecutor(options.workers) as pool:
        runs = [pool.submit(_timed, *each) for each in asked]
        yield from (done.result() for done in as_completed(runs))


def _timed(name: str, part: int, seed: int, studies: int) -> tuple[dict[str, float], float]:
    """A part's figures, and its seconds; each part has random numbers of its own."""
    start = time.perf_counter()
    random = np.random.default_rng([seed, list(SETTINGS).index(name), part])
    found = SETTINGS[name][part](random, studies)
    return found, time.perf_counter() - start


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=STUDIES, help="of each setting")
    parser.add_argument("--out", type=Path, help="JSON of all figures, those of each setting too")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1000, help="the clock's")
    parser.add_argument(
        "--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), metavar="SETTING"
    )
    options = parser.parse_args()
    if options.studies < 10:
        parser.error("--studies is at least 10")
    return options


if __name__ == "__main__":
    sys.exit(main())
