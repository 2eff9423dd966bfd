"""Read a run's trace and go on after every interruption: each event exactly once, from any number on.

.venv/bin/python clients/examples/watch_trace.py RUN --after 0 --inner 127.0.0.1:7402
"""

from __future__ import annotations

import argparse

from clients import InnerClient
from service_kit.server import run as run_politely


async def watch(address: str, run: str, after: int) -> None:
    """Print number, time and kind of every event until the run has ended."""
    async with InnerClient(address) as inner:
        async for event in inner.watch_trace(run, after):
            print(f"{event.sequence:>6}  {event.time.ToDatetime():%H:%M:%S}  {event.WhichOneof('event')}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print a run's trace.")
    parser.add_argument("run", help="runs/ID")
    parser.add_argument("--after", type=int, default=0, help="the last sequence number that you have")
    parser.add_argument("--inner", default="127.0.0.1:7402", metavar="HOST:PORT")
    options = parser.parse_args()
    run_politely(watch(options.inner, options.run, options.after))
