"""The facts about a trained adapter that is not committed yet."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tuneproof.servicekit.files import write_atomically

_FILE = "summary.json"


class Summary(BaseModel):
    """summary.json beside the adapter's files; the registry does not take it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    facts: dict[str, str]
    """The provenance."""

    def write(self, folder: Path) -> None:
        """Makes the file."""
        write_atomically(folder / _FILE, self.model_dump_json(indent=2).encode())

    @classmethod
    def read(cls, folder: Path) -> Summary:
        """Reads the file that `write` made."""
        return cls.model_validate_json((folder / _FILE).read_bytes())
