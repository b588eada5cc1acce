"""kubectl, as all clusters of these tests are asked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from ..rendering import Manifest


class Kubectl:
    """Asks the API server of one kubeconfig.

    Args:
        program: kubectl itself.
        seconds: that a command may take.
    """

    def __init__(self, program: Path, kubeconfig: Path, *, seconds: float) -> None:
        self._command = (program, "--kubeconfig", kubeconfig)
        self._kubeconfig = kubeconfig
        self._seconds = seconds

    def __call__(self, *arguments: str | Path, given: str = "", fine: bool = False) -> str:
        """What kubectl prints.

        Args:
            given: its standard input.
            fine: gives what it prints of a failure too.
        """
        done = self._run(*arguments, given=given)
        if done.returncode and not fine:
            raise AssertionError(f"kubectl {arguments}: {done.stderr or done.stdout}")
        return done.stdout + (done.stderr if done.returncode else "")

    def apply(self, *manifests: Manifest, dry_run: bool = False) -> str:
        """Has the API server take manifests, by the letter; with a dry run only checks them.

        Returns:
            what it says, warnings included.
        """
        options = ["--dry-run=server"] if dry_run else []
        command = ["apply", "--server-side", "--validate=strict", *options, "--filename", "-"]
        done = self._run(*command, given=yaml.safe_dump_all(manifests))
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def kubeconfig_of(self, account: str, namespace: str) -> Path:
        """A kubeconfig with the token of a service account, and its rights."""
        token = self("create", "token", account, "--namespace", namespace).strip()
        config = yaml.safe_load(self._kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        config["contexts"][0]["context"]["namespace"] = namespace
        path = self._kubeconfig.with_name(f"{account}.kubeconfig")
        path.write_text(yaml.safe_dump(config))
        return path

    def _run(self, *arguments: str | Path, given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=self._seconds,
        )
