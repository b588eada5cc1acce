"""The demo's scripts lie beside each other and import each other so: tests do the same."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
