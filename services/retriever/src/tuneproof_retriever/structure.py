"""Headings and paragraphs of a text, which is read as Markdown.

Text without marks is Markdown too: empty lines separate its paragraphs. An item of a list is a
paragraph of its own, and a fenced block of code is one whatever is in it.

The rules are CommonMark's (0.31.2, sections 4.2, 4.3 and 4.5), but a heading that is underlined has
one line. This takes linear time, which markdown-it-py (4.3.0) does not for many short paragraphs.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field

_LINE = re.compile(r"[^\n]+\n?|\n")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_HEADING = re.compile(r" {0,3}#{1,6}(?:\s|\Z)")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)\s*\Z")
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])\s")


@dataclass
class Blocks:
    """Offsets into a text in code points, ascending."""

    paragraphs: array[int] = field(default_factory=lambda: array("I"))
    """Where a paragraph begins that does not directly follow its heading."""
    sections: array[int] = field(default_factory=lambda: array("I"))
    """Where a section begins: at its heading, or the first of several that follow each other."""


def blocks_of(text: str) -> Blocks:
    """The paragraphs and sections of a text."""
    starts, headings = array("I"), bytearray()
    lines_of_paragraph = 0
    fence = ""
    for match in _LINE.finditer(text):
        line = match[0]
        if fence:
            fence = "" if _closes(line, fence) else fence
        elif not line.strip():
            lines_of_paragraph = 0
        elif opening := _FENCE.match(line):
            fence = opening[1]
            starts.append(match.start())
            headings.append(False)
            lines_of_paragraph = 0
        elif _HEADING.match(line):
            starts.append(match.start())
            headings.append(True)
            lines_of_paragraph = 0
        elif lines_of_paragraph == 1 and _UNDERLINE.match(line):
            headings[-1] = True
            lines_of_paragraph = 0
        elif not lines_of_paragraph or _ITEM.match(line):
            starts.append(match.start())
            headings.append(False)
            lines_of_paragraph = 1
        else:
            lines_of_paragraph += 1
    blocks = Blocks()
    after_heading = 0
    for start, heading in zip(starts, headings, strict=True):
        if not after_heading:
            (blocks.sections if heading else blocks.paragraphs).append(start)
        after_heading = heading
    return blocks


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return len(mark) >= len(fence) and set(mark) == {fence[0]}
