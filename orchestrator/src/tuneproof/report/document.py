"""The parts of every page: it loads nothing, and its policy forbids the browser to."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(package: str) -> Environment:
    """Templates from a package's folder `templates`, with escaped output."""
    return Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def asset(name: str, package: str = "tuneproof.report") -> str:
    """A file of ours, which needs no escaping."""
    return files(package).joinpath("templates", name).read_text("utf-8")


def policy(style: str, script: str) -> str:
    """A Content-Security-Policy that allows one style sheet, one script and no request at all."""
    return (
        f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
