"""A service without what is slow behind it, for pods: the fakes of the orchestrator's tests.

    python stand_in.py ROLE

The role names its settings: `TUNEPROOF_<ROLE>_BIND` and so on.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic_settings import SettingsConfigDict

from tuneproof.servicekit.server import Service, run
from tuneproof.servicekit.settings import ServiceSettings, settings_config

sys.path.insert(0, str(Path(__file__).parents[2] / "orchestrator/tests"))


class Declared(set[str]):
    """Adapters of a pool whose replicas know nothing of one another: each is there."""

    def __contains__(self, ref: object) -> bool:
        return True


@asynccontextmanager
async def fakes(settings: ServiceSettings) -> AsyncIterator[Service]:
    from fakes import service_of
    from small_study import SmallStudy

    with TemporaryDirectory() as folder:
        world = SmallStudy(Path(folder)).world(delay=0.01, adapters=Declared())
    yield service_of(world)


def settings_of(role: str) -> type[ServiceSettings]:
    class Settings(ServiceSettings):
        """Those of a service, and no more."""

        model_config = SettingsConfigDict(**settings_config(role) | {"extra": "ignore"})

    return Settings


if __name__ == "__main__":
    role = sys.argv.pop(1)
    sys.exit(run(settings_of(role), fakes, name=role))
