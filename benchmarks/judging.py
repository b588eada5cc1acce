"""Draws the plots of docs/judging.md from people's labels, without any judge model.

TUNEPROOF_DATA=data python benchmarks/judging.py docs
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from verdicts.plots import Panel, draw

from tuneproof.calibration import Figures, LabelledSet, Scale, beside, figures_of, load_set, plot
from tuneproof_judge import lexical

SHARES = Scale(0.0, 1.0)
WORDS = {"token F1": lexical.token_f1, "ROUGE-L": lexical.rouge_l}


def by_words(labelled: LabelledSet) -> list[Figures]:
    """Word overlap as a source of scores, the best over the references."""
    found = []
    for name, score in WORDS.items():
        scores = {
            one.id: max(score(one.answer, each) for each in one.references)
            for one in labelled.answers
        }
        figures = figures_of(labelled, scores, SHARES, name, SHARES)
        assert figures is not None
        found.append(figures)
    return found


def agreement(evouna: list[Figures], nq301: dict[str, Figures]) -> str:
    """κ by system, beside that of people among themselves."""
    systems = [one.name for one in evouna[0].by_system]
    ceiling = nq301["another person"].kappa
    assert ceiling is not None

    def of(name: str) -> list[float | None]:
        """EVOUNA's systems, then NQ301."""
        whole = nq301.get(name)
        by_system = next((one.by_system for one in evouna if one.source == name), ())
        kappas = {one.name: one.kappa for one in by_system}
        return [*map(kappas.get, systems), whole.kappa.value if whole and whole.kappa else None]

    series = [(name, of(name)) for name in ("lexical match", "token F1", "GPT-4")]
    title = f"κ beside people; dashed: NQ301's people, {ceiling.value:.3f}"
    panel = Panel(title, 0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0), ceiling.value, series)
    labels = [*(f"EVOUNA-NQ, {one}" for one in systems), "NQ301"]
    return draw(labels, [panel], "Agreement with people by system, beside the human ceiling")


def main() -> int:
    """Writes two files."""
    folder, data = Path(sys.argv[1]), Path(os.environ["TUNEPROOF_DATA"])
    labelled = load_set("evouna", data, "accuracy")
    evouna = [*beside(labelled), *by_words(labelled)]
    nq301 = {one.source: one for one in beside(load_set("nq301", data, "accuracy"))}
    (folder / "judging-agreement.svg").write_text(agreement(evouna, nq301))
    (folder / "judging-reliability.svg").write_text(plot(evouna))
    return 0


if __name__ == "__main__":
    sys.exit(main())
