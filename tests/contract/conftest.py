"""Puts this folder on the path: the reference task and the fault-injecting proxy are modules of their own."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
