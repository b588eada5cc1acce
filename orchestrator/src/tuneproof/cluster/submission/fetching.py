"""The state of a submitted study, brought to this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

from tuneproof.cluster.api import Cluster
from tuneproof.cluster.forwarding import Forwarder
from tuneproof.cluster.pods import is_ready
from tuneproof.cluster.submission.bundle import unpack
from tuneproof.cluster.submission.manifests import PREFIX, READER, Plan, reader_of
from tuneproof.cluster.submission.progress import progress_of, selector_of
from tuneproof.cluster.troubles import why_not_ready
from tuneproof.servicekit.errors import NotFound, Unavailable
from tuneproof.study.state.snapshots import NAME, PORT

_SECONDS = 120.0
_PAUSE = 0.3
_READER_SECONDS = 600
"""A reader ends by itself, should nobody delete it."""


def fetch(cluster: Cluster, plan: Plan, folder: Path) -> Path:
    """Makes a folder the state folder of a submitted study; gives the study file, which is in it.

    Reads the state from the study's pod, or from a pod that lives as long as this takes.

    Raises:
        NotFound: it has no state yet.
        Unavailable: the pod does not start, with the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unpack(plan.bundle.packed, folder / "study")
    forwarder = Forwarder(cluster, "forward")
    try:
        if not _from_its_pod(cluster, forwarder, plan, folder / NAME):
            _by_reader(cluster, forwarder, plan, folder / NAME)
    finally:
        forwarder.close()
    if plan.bundle.data:
        _move_data(folder / NAME, folder.resolve() / "study" / plan.bundle.data)
    return folder / "study" / plan.bundle.study


def _move_data(state: Path, data: Path) -> None:
    """Names the data's file as it is called here, for commands that read it again."""
    with closing(sqlite3.connect(state)) as database, database:
        database.execute(
            "UPDATE studies SET resolved = json_set(resolved, '$.data', ?)"
            " WHERE json_extract(resolved, '$.data') <> ''",
            [str(data)],
        )


def _from_its_pod(cluster: Cluster, forwarder: Forwarder, plan: Plan, target: Path) -> bool:
    """Whether the study runs, or will: then from its pod."""
    if progress_of(cluster, plan.name).ended:
        return False
    try:
        _copy(cluster, forwarder, selector_of(plan.name), target)
    except Unavailable:
        if progress_of(cluster, plan.name).ended:  # meanwhile
            return False
        raise
    return True


def _by_reader(cluster: Cluster, forwarder: Forwarder, plan: Plan, target: Path) -> None:
    name = f"{PREFIX}{plan.name}-{secrets.token_hex(3)}"
    cluster.create("pods", reader_of(plan, name, _READER_SECONDS))
    try:
        _copy(cluster, forwarder, f"{READER}={name}", target)
    finally:
        cluster.delete("pods", name)


def _copy(cluster: Cluster, forwarder: Forwarder, selector: str, target: Path) -> None:
    end = time.monotonic() + _SECONDS
    pods = cluster.list("pods", selector)
    while not any(is_ready(pod) for pod in pods):
        phases = {pod["status"].get("phase") for pod in pods}
        if time.monotonic() > end or (phases and phases <= {"Succeeded", "Failed"}):
            why = why_not_ready(cluster, pods)
            raise Unavailable(f"the state cannot be read yet: {why or 'its pod has ended'}")
        time.sleep(_PAUSE)
        pods = cluster.list("pods", selector)
    (address,) = forwarder.open(selector, PORT)
    part = target.with_suffix(f".{os.getpid()}")
    while True:
        try:
            with (
                urllib.request.urlopen(f"http://{address}/{NAME}", timeout=_SECONDS) as reply,
                part.open("wb") as file,
            ):
                shutil.copyfileobj(reply, file)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise NotFound("the study has no state yet: its pod has just started") from None
            raise
        except OSError as error:  # the server in the pod starts
            if time.monotonic() > end:
                raise Unavailable(f"the state cannot be read: {error}") from None
            time.sleep(_PAUSE)
        else:
            part.replace(target)
            return
