"""One of our pages, read as text."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "input", "br", "hr", "img", "col"}


class Page(HTMLParser):
    """Collects elements; every start must meet its end, in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.packed: dict[str, str] = {}
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> says an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        attrs = next((attrs for tag, attrs in reversed(self.elements) if tag == inside), {})
        if inside == "script" and attrs.get("type"):
            name = str(attrs["id"]).removeprefix("pack-")
            self.packed[name] = self.packed.get(name, "") + data
            return
        {"script": self.scripts, "style": self.styles}.get(inside, self.words).append(data)

    def unpacked(self, name: str) -> Any:
        """One block, or the values of all its parts."""
        if name in self.packed:
            return json.loads(gzip.decompress(base64.b64decode(self.packed[name])))
        parts = sum(one.startswith(f"{name}-") for one in self.packed)
        return [value for place in range(parts) for value in self.unpacked(f"{name}-{place}")]

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.elements if attribute in attrs]
