"""Submitted studies of a namespace: made, found again, listed, cancelled."""

from __future__ import annotations

import getpass
import json
import re
import time
from base64 import b64decode
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from tuneproof.cluster.access import CLIENT_SECRET, secret
from tuneproof.cluster.pods import container_of
from tuneproof.cluster.reach import Reach
from tuneproof.cluster.services import Service
from tuneproof.cluster.submission import manifests
from tuneproof.cluster.submission.bundle import Bundle
from tuneproof.cluster.submission.manifests import (
    DATA,
    DIGEST,
    FILE,
    IMAGE,
    LABEL,
    OWNER,
    PREFIX,
    Plan,
)
from tuneproof.cluster.submission.progress import Progress, progress_of
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput, NotFound, Unavailable

_LONGEST = 40
_DELETE_SECONDS = 60.0
_PAUSE = 0.3
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True)
class Asked:
    """What a command says of the Job."""

    image: str = ""
    """By default that of the judge, with `orchestrator` for its name."""
    storage: str = "2Gi"
    storage_class: str = ""
    secrets: tuple[str, ...] = ()
    artifacts: str = ""
    token: str = ""
    """By default as for calls from here."""
    outside: bool = False
    pod: Path | None = None
    """A file with more of its pods: `Plan.pod`."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One that is there."""

    name: str
    owner: str
    since: str
    progress: Progress


class Submissions:
    """Those of one namespace."""

    def __init__(self, reach: Reach) -> None:
        self._reach, self._cluster = reach, reach.cluster

    def name_for(self, study: str) -> str:
        """The name of this user's submission of a study: two users' differ."""
        slug = re.sub(r"[^a-z0-9]+", "-", study.lower()).strip("-")[:_LONGEST] or "study"
        return f"{slug}-{sha256(f'{self.owner()} {study}'.encode()).hexdigest()[:6]}"

    def owner(self) -> str:
        """Who submits: the user here, and as the cluster knows it."""
        return f"{getpass.getuser()} ({self._cluster.user()})"

    def plan(
        self,
        name: str,
        bundle: Bundle,
        flags: list[str],
        services: list[Service],
        asked: Asked,
    ) -> Plan:
        """What the Job is made of.

        Args:
            flags: of `tuneproof study run`, but the store of artifacts.
            services: that the study calls.
        """
        if not _NAME.fullmatch(name) or len(name) > _LONGEST + 7:
            raise InvalidInput(
                f"{name!r} cannot name a Job: use up to {_LONGEST + 7} lower-case letters, digits"
                " and hyphens"
            )
        store = asked.artifacts or self._reach.artifacts()
        claim = ("", "") if "://" in store else self._reach.claim_of(store)
        flags = [*flags, f"--artifacts={store}"]
        image = asked.image or self._image()
        own = self._own_token(asked.token)
        decides = [bundle.digest, *flags]
        return Plan(
            name,
            self.owner(),
            sha256_of_json(decides),
            bundle,
            image,
            tuple(flags),
            PREFIX + name if own else CLIENT_SECRET,
            own,
            asked.storage,
            asked.storage_class,
            asked.secrets,
            claim,
            any(one.encrypted for one in services),
            asked.outside or "://" in store,
            _pod_in(asked.pod),
        )

    def submit(self, plan: Plan) -> str:
        """Makes the Job, unless it runs or has run; says which.

        Raises:
            InvalidInput: a study of this name runs, with other files or flags.
        """
        name, there = plan.name, self._cluster.get("configmaps", PREFIX + plan.name)
        before = progress_of(self._cluster, name)
        if there is not None:
            same = there["metadata"]["annotations"].get(DIGEST) == plan.digest
            if not before.ended and same:
                return f"{name} is submitted already, and {before.state}"
            if not before.ended:
                owner = there["metadata"]["annotations"].get(OWNER, "somebody")
                raise InvalidInput(
                    f"{name}, submitted by {owner}, {before.state} with other files or flags:"
                    f" wait for it, end it by `tuneproof study cancel {name}`, or give this one"
                    " another --name"
                )
            if before.state == "done" and same:
                return f"{name} has run; `tuneproof study report {name} --submitted` reads it"
        self._clear(name, state=False)
        self._cluster.create("persistentvolumeclaims", manifests.claim_of(plan))
        self._cluster.create("configmaps", manifests.files_of(plan))
        if plan.token_secret == PREFIX + name:
            self._cluster.create("secrets", manifests.token_of(plan))
        self._cluster.create("jobs", manifests.job_of(plan))
        return f"{name} {'goes on' if there is not None else 'is submitted'}"

    def find(self, name: str) -> Plan:
        """What a submitted study was made of, as far as reading it needs.

        Raises:
            NotFound: there is none of that name.
        """
        there = self._cluster.get("configmaps", PREFIX + name)
        if there is None:
            listed = ", ".join(one.name for one in self.list()) or "none"
            raise NotFound(
                f"no study {name!r} is submitted in {self._cluster.place}; there: {listed}"
            )
        told = there["metadata"]["annotations"]
        packed = b64decode(there["binaryData"][manifests.PACKED])
        bundle = Bundle(packed, told[FILE], told.get(DATA, ""))
        image = told[IMAGE]
        pod = json.loads(there["data"][manifests.POD])
        return Plan(name, told[OWNER], told[DIGEST], bundle, image, (), "", "", "", pod=pod)

    def progress(self, name: str) -> Progress:
        """How its Job is."""
        return progress_of(self._cluster, name)

    def list(self) -> list[Submission]:
        """All that are there, of all users."""
        return [
            Submission(
                name,
                each["metadata"]["annotations"].get(OWNER, ""),
                each["metadata"]["creationTimestamp"],
                progress_of(self._cluster, name),
            )
            for each in self._cluster.list("configmaps", LABEL)
            if (name := each["metadata"]["labels"][LABEL])
        ]

    def cancel(self, name: str, *, purge: bool) -> str:
        """Ends its Job; the state stays unless `purge`. Says what was done."""
        self.find(name)
        ran = not self.progress(name).ended
        if purge:
            self._clear(name, state=True)
            return f"{name} is deleted, with its state"
        self._cluster.delete("jobs", PREFIX + name)
        kept = "its state is kept: submit it again to go on, or delete it with --purge"
        return f"{name} {'ends' if ran else 'had ended'}; {kept}"

    def _clear(self, name: str, *, state: bool) -> None:
        kinds = ["jobs", "configmaps", "secrets"] + (["persistentvolumeclaims"] if state else [])
        for kind in kinds:
            self._cluster.delete(kind, PREFIX + name)
        end = time.monotonic() + _DELETE_SECONDS
        while self._cluster.get("jobs", PREFIX + name) is not None:
            if time.monotonic() > end:
                raise Unavailable(f"the Job {PREFIX}{name} does not end")
            time.sleep(_PAUSE)

    def _own_token(self, given: str) -> str:
        """A token for this study alone; empty where the Secret of clients has one for all.

        Raises:
            InvalidInput: there is none.
        """
        if not given and secret(self._cluster, CLIENT_SECRET).get("token"):
            return ""
        token = self._reach.token(given)
        if token is None:
            raise InvalidInput(
                "the Job needs a token of the services: give --token, or make the Secret"
                f" {CLIENT_SECRET} with the key token"
            )
        return token.read_text("utf-8").strip() if isinstance(token, Path) else token

    def _image(self) -> str:
        judge = next((one for one in self._reach.services if one.role == "judge"), None)
        if judge is None or not judge.pods:
            raise InvalidInput("no judge tells the image: name it with --image")
        image: str = container_of(judge.pods[0], "judge")["image"]
        return re.sub(r"judge(?=(:[^/:]+)?$)", "orchestrator", image.split("@", maxsplit=1)[0])


def _pod_in(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInput(
            f"{file} is not parts of a pod: write keys such as env, volumes, volumeMounts,"
            " nodeSelector, tolerations, imagePullSecrets"
        )
    return found
