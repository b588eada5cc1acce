"""The rubrics that come with tuneproof, and those of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from tuneproof.rubrics.rubric import Rubric, parse_rubric
from tuneproof.servicekit.errors import InvalidInput, NotFound

_SUFFIXES = (".yaml", ".yml")


class RubricShelf:
    """Rubrics by id."""

    def __init__(self, rubrics: Sequence[Rubric]) -> None:
        self._by_id = {rubric.id: rubric for rubric in sorted(rubrics, key=lambda each: each.id)}

    @classmethod
    def load(cls, folder: Path | None = None) -> RubricShelf:
        """The built-in rubrics and those of a folder's YAML files.

        Raises:
            InvalidInput: with the mistakes of all files; for an id that two files use, both files.
        """
        sources = list(_yaml_files(files("tuneproof.rubrics") / "builtin"))
        if folder is not None:
            if not folder.is_dir():
                raise InvalidInput(f"the rubrics folder {folder} does not exist; see --rubrics")
            sources += _yaml_files(folder)
        found: dict[str, tuple[Rubric, str]] = {}
        mistakes = []
        for source in sources:
            try:
                rubric = parse_rubric(source.read_bytes(), str(source))
            except OSError as error:
                mistakes.append(f"{source}: cannot be read: {error.strerror}")
                continue
            except InvalidInput as error:
                mistakes.append(error.message)
                continue
            if rubric.id in found:
                mistakes.append(
                    f"{source} and {found[rubric.id][1]} both define {rubric.id};"
                    " give one of them another name or version"
                )
            found[rubric.id] = rubric, str(source)
        if mistakes:
            raise InvalidInput("\n".join(mistakes))
        return cls([rubric for rubric, _ in found.values()])

    def __iter__(self) -> Iterator[Rubric]:
        """By id."""
        return iter(self._by_id.values())

    def get(self, rubric_id: str) -> Rubric:
        """A rubric by its id.

        Raises:
            NotFound: listing the ids that exist.
        """
        if rubric_id not in self._by_id:
            raise NotFound(
                f"there is no rubric {rubric_id[:100]!r}; there are {', '.join(self._by_id)}"
            )
        return self._by_id[rubric_id]


def _yaml_files(folder: Traversable) -> Iterator[Traversable]:
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if entry.name.endswith(_SUFFIXES) and not entry.name.startswith("."):
            yield entry
