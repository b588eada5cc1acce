"""Lets tests import the modules that lie beside them (`fakes`, `small_study`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
