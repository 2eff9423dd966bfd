"""What follows an address differs from process to process, also where the system does not randomise addresses."""

from __future__ import annotations

import subprocess
import sys

ORDER_OF_FUNCTIONS = """
import ctypes, os, random, sys
ADDR_NO_RANDOMIZE = 0x0040000  # personality(2); a container may refuse it, and then addresses are random anyway
if len(sys.argv) == 1:
    ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE)
    os.execv(sys.executable, [sys.executable, "-c", sys.orig_argv[2], "again"])
from mechanisms.sandbox.addresses import scatter
kept = scatter(random.Random())
print([f() for f in {(lambda i=i: i) for i in range(50)}])
"""


def test_a_set_of_functions_has_another_order_in_each_process() -> None:
    orders = {
        subprocess.run([sys.executable, "-c", ORDER_OF_FUNCTIONS], check=True, capture_output=True, text=True).stdout
        for _ in range(3)
    }
    assert len(orders) == 3
