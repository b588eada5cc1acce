"""Lets tests import the modules that lie beside them (`fakes`, `studies`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
