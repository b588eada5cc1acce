"""Several studies in one report: each is read as it ran, and gets its own report beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from os.path import relpath
from pathlib import Path
from urllib.parse import quote

from tuneproof.cli.console import out, print_json
from tuneproof.report import build_report, findings, headline
from tuneproof.report.together import Part, build_joint_report, joint_json, names_of
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.files import write_atomically
from tuneproof.study.opened import Study

FILE_NAME = "together.html"
_EXPORTED = ".json"


def deliver_together(
    files: Sequence[Path], path: Path | None, state: Path, *, as_json: bool
) -> bool:
    """Writes a report over several studies, and one of each, and says what they found.

    Args:
        files: study files that ran in the state folder, or what `study export --format json` wrote.
        path: where the joint report goes; None: the state folder.

    Returns:
        Whether every study is complete.

    Raises:
        InvalidInput: a file is wrong, or two of them are one study.
        NotFound: nothing ran in this state folder.
    """
    studies = [_opened(file, state) for file in files]
    _check_names([study.results.name for study in studies], files)
    folder = state / "reports"
    path = path or folder / FILE_NAME
    parts = [_part(study, folder, path.parent) for study in studies]
    write_atomically(path, build_joint_report(parts).encode("utf-8", "replace"))
    if as_json:
        reports = {study.results.name: str(_own(folder, study)) for study in studies}
        print_json({**joint_json(parts), "report": str(path), "reports": reports})
    else:
        for line in _lines(parts):
            out.print(line, markup=False, soft_wrap=True)
        out.print(f"report: {path}", markup=False)
    return all(study.complete for study in studies)


def _opened(file: Path, state: Path) -> Study:
    return Study.read(file) if file.suffix == _EXPORTED else Study.open(file, state)


def _check_names(names: Sequence[str], files: Sequence[Path]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        clash = [str(file) for file, name in zip(files, names, strict=True) if name in twice]
        raise InvalidInput(
            f"{' and '.join(clash)} are one study, {twice[0]!r}: give each its own `study:` name"
        )


def _part(study: Study, folder: Path, beside: Path) -> Part:
    """A study with its own report, which is written here."""
    own = _own(folder, study)
    page = build_report(study.results, study.comparisons)
    write_atomically(own, page.encode("utf-8", "replace"))
    link = quote(Path(relpath(own, beside)).as_posix())
    return Part(study.results, study.comparisons, link)


def _own(folder: Path, study: Study) -> Path:
    return folder / f"{study.results.name}.html"


def _lines(parts: Sequence[Part]) -> Iterator[str]:
    for name, part in zip(names_of(parts), parts, strict=True):
        yield f"{name}: {headline(findings(part.results, part.comparisons))}"
