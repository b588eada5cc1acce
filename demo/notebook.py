"""Runs a notebook's cells on a study's results, as CI does with docs/results.ipynb:

TUNEPROOF_RESULTS=results.json python demo/notebook.py docs/results.ipynb
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any


def run(path: Path) -> list[Any]:
    """The values of the cells that end in an expression, in their order."""
    names: dict[str, Any] = {}
    shown = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]), str(path))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(path), "exec"), names)  # noqa: S102 - a notebook of ours
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), str(path), "eval"), names)  # noqa: S307 - as above
            shown.append(value)
    return shown


if __name__ == "__main__":
    for value in run(Path(sys.argv[1])):
        print(value, end="\n\n")
