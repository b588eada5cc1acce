"""How much memory a draw from a large file of Natural Questions takes, and how long.

    make verify-data

Writes a file in the original form with examples of the usual size (8,000 tokens, about 0.7 MB), and
draws questions from it in a process of its own. `peak_mb` is that process's most resident memory,
everything that it imports included; `made_mb` is the size of the file, `seconds` the time of the
draw. It fails when the peak is above `--most-mb`, or when the draw is not the expected one.

The real training set is packed; its draw also unpacks it, in one thread.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tuneproof.data.loaders import natural_questions

_WORDS = 8000
_MIB = 2**20


def main() -> None:
    """Makes the file, starts the draw, prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--most-mb", type=int, default=500)
    parser.add_argument("--draw", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.draw:
        _draw(given.draw, given.items)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v1.0-train-00.jsonl"
        written = _write(path, given.megabytes * _MIB)
        print(f"{written} examples in {path.stat().st_size / _MIB:.0f} MB", file=sys.stderr)
        command = [sys.executable, __file__, "--draw", str(path), "--items", str(given.items)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        figures = json.loads(done.stdout) | {"made_mb": round(path.stat().st_size / _MIB)}
    print(json.dumps(figures))
    expected = min(given.items, written)
    if figures["items"] != expected:
        sys.exit(f"{figures['items']} questions were drawn, not {expected}")
    if figures["peak_mb"] > given.most_mb:
        sys.exit(f"the draw took {figures['peak_mb']} MB, more than {given.most_mb}")


def _draw(path: Path, items: int) -> None:
    start = time.perf_counter()
    dataset = natural_questions.load([path], items=items)
    figures = {
        "items": len(dataset.items),
        "passed_over": sum(dataset.left_out.values()),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(figures))


def _write(path: Path, size: int) -> int:
    """Writes examples until the file has that many bytes; returns their number."""
    rng, written, count = random.Random(1), 0, 0
    with path.open("wb") as file:
        while written < size:
            line = json.dumps(_example(count, rng)).encode() + b"\n"
            written += file.write(line)
            count += 1
    return count


def _example(number: int, rng: random.Random) -> dict[str, object]:
    words = [f"word{n}" for n in rng.choices(range(30_000), k=_WORDS)]
    tokens = list(_tokens(words))
    span = {"start_byte": 0, "end_byte": 1, "start_token": 0, "end_token": 102}
    return {
        "annotations": [
            {
                "annotation_id": number,
                "long_answer": {**span, "candidate_index": 0},
                "short_answers": [{**span, "start_token": 3, "end_token": 5}],
                "yes_no_answer": "NONE",
            }
        ],
        "document_html": " ".join(str(token["token"]) for token in tokens),
        "document_title": f"Page {number}",
        "document_tokens": tokens,
        "document_url": f"https://en.wikipedia.org//w/index.php?title=Page_{number}&amp;oldid=1",
        "example_id": number,
        "long_answer_candidates": [{**span, "top_level": True}],
        "question_text": f"what is on page {number}",
        "question_tokens": ["what"],
    }


def _tokens(words: list[str]) -> Iterator[dict[str, object]]:
    at = 0
    for start in range(0, len(words), 100):
        for token in ("<P>", *words[start : start + 100], "</P>"):
            end = at + len(token)
            yield {
                "end_byte": end,
                "html_token": token.startswith("<"),
                "start_byte": at,
                "token": token,
            }
            at = end + 1


if __name__ == "__main__":
    main()
