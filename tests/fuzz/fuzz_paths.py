"""Makes the fakes of the unit tests importable, and the targets quiet; imported first by every target."""

import sys
from pathlib import Path

from instar import log

HERE = Path(__file__).parent
for folder in ("devices", "monitor"):
    path = str(HERE.parent / "unit" / folder)
    if path not in sys.path:
        sys.path.append(path)
log.set_level("error")  # what a fuzzed guest does wrong is warned of, a thousand times
