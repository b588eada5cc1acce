"""What is downloaded of a model at the hub, by a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.hub import resolve_model

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
SAFE = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer.model",
    "chat_template.jinja",
    "merges.txt",
    "1_Pooling/config.json",
}
UNSAFE = {
    "pytorch_model.bin",
    "model.pt",
    "data.pkl",
    "original/consolidated.00.pth",
    "modeling_custom.py",
    "weights.h5",
    "flax_model.msgpack",
    "arrays.npz",
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's HTTP as `snapshot_download` asks for."""

    models: ClassVar = {"some/model": SAFE | UNSAFE, "some/pickles": UNSAFE | {"config.json"}}
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        self.asked.append(f"{self.command} {self.path}")
        if parts[:2] == ["api", "models"]:
            model = "/".join(parts[2:4])
            revision = parts[5] if len(parts) > 5 else "main"
            commit = COMMITS.get(revision, revision if revision in COMMITS.values() else None)
            if model not in self.models:
                return self._refuse(404, "RepoNotFound")
            if commit is None:
                return self._refuse(404, "RevisionNotFound")
            files = sorted(self.models[model])
            siblings = [{"rfilename": name} for name in files]
            body = {"id": model, "sha": commit, "siblings": siblings, "tags": [], "private": False}
            if len(parts) > 4 and parts[4] == "tree":
                body = [
                    {"type": "file", "path": name, "size": len(self._content(name)), "oid": "0"}
                    for name in files
                ]
            return self._give(json.dumps(body).encode(), "application/json", commit)
        commit, name = parts[3], "/".join(parts[4:])
        return self._give(self._content(name), "application/octet-stream", commit)

    def _content(self, name: str) -> bytes:
        return f"content of {name}".encode()

    def _give(self, body: bytes, kind: str, commit: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, code: int, reason: str) -> None:
        self.send_response(code)
        self.send_header("X-Error-Code", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


CODE = """
import sys
from tuneproof.servicekit.errors import TuneproofError
from tuneproof.servicekit.hub import resolve_model
try:
    model = resolve_model(*sys.argv[1:])
    print(model.name, model.revision, model.path)
except TuneproofError as error:
    print(type(error).__name__, error.message)
"""


def resolved(hub: str, home: Path, *arguments: str, code: str = CODE) -> str:
    """What a process of its own, whose hub is this one, prints."""
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(home)}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


ONE_FILE = """
from tuneproof.servicekit.hub import download
print(download("some/pickles", files=("config.json",), needs="config.json").path)
"""


@pytest.mark.process
def test_one_file_of_a_model_arrives_alone_and_needs_no_weights(hub: str, tmp_path: Path) -> None:
    path = resolved(hub, tmp_path, code=ONE_FILE)
    assert files_in(Path(path)) == {"config.json"}


@pytest.mark.process
def test_no_file_arrives_that_runs_when_it_is_read(hub: str, tmp_path: Path) -> None:
    name, revision, path = resolved(hub, tmp_path, "some/model").split()
    assert (name, revision) == ("some/model", COMMITS["main"])
    assert files_in(Path(path)) == SAFE
    fetched = [entry for entry in Hub.asked if "/resolve/" in entry]
    assert fetched
    assert not any(entry.endswith(name) for entry in fetched for name in UNSAFE)


@pytest.mark.process
def test_a_revision_is_pinned_and_its_commit_is_told(hub: str, tmp_path: Path) -> None:
    assert resolved(hub, tmp_path, "some/model", "v1").split()[1] == COMMITS["v1"]
    assert resolved(hub, tmp_path, "some/model", COMMITS["v1"]).split()[1] == COMMITS["v1"]
    told = resolved(hub, tmp_path, "some/model", "v9")
    assert told.startswith("InvalidInput --model some/model is not a folder here")
    assert "v9" in told


MAIN = """
from tuneproof.servicekit.hub import main
raise SystemExit(main())
"""


@pytest.mark.process
def test_what_was_downloaded_needs_no_hub_again_if_it_is_whole(hub: str, tmp_path: Path) -> None:
    model = ("some/model", COMMITS["v1"])
    folder = Path(resolved(hub, tmp_path, *model, code=MAIN))
    told = resolved("http://127.0.0.1:9", tmp_path, *model)
    assert told.split() == [*model, str(folder)]
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    told = resolved("http://127.0.0.1:9", tmp_path, *model)
    assert told.startswith("InvalidInput --model some/model")
    assert "lacks model-2.safetensors: it is not downloaded whole" in told


@pytest.mark.process
def test_a_model_of_pickles_is_refused(hub: str, tmp_path: Path) -> None:
    told = resolved(hub, tmp_path, "some/pickles")
    assert told.startswith("InvalidInput")
    assert "no *.safetensors" in told


@pytest.mark.process
def test_a_model_that_the_hub_has_not_is_told_in_one_line(hub: str, tmp_path: Path) -> None:
    told = resolved(hub, tmp_path, "some/other")
    assert told.startswith("InvalidInput --model some/other is not a folder here, and the hub does")
    assert "\n" not in told


def test_a_folder_is_taken_as_it_is_and_has_no_revision(tmp_path: Path) -> None:
    folder = resolve_model(str(tmp_path))
    assert (folder.path, folder.name, folder.revision) == (tmp_path, tmp_path.name, "")
    with pytest.raises(InvalidInput, match="revisions are for model ids"):
        resolve_model(str(tmp_path), "v1")
