"""`python -m tests.chaos.simulation <seed> [<bug>]`: a run again, with its history."""

import sys

from tests.chaos.simulation.bugs import BUGS, CORRECT, DEFECTS
from tests.chaos.simulation.simulation import run

name = sys.argv[2] if len(sys.argv) > 2 else ""
parts, faults = DEFECTS[name] if name in DEFECTS else (BUGS[name] if name else CORRECT, None)
print(run(int(sys.argv[1]), parts, faults).report())
