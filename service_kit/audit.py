"""``verify`` and ``rebuild`` for a service's database, by a process of their own; the service may run meanwhile."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from service_kit.eventlog import Problem
from service_kit.server import run
from service_kit.settings import PathSettings


class Auditable(Protocol):
    """A store whose rows follow from its log."""

    async def verify(self, id_: str = "", /) -> list[Problem]: ...
    async def rebuild(self, id_: str, /) -> object: ...
    async def extent(self) -> dict[str, int]: ...
    async def close(self) -> None: ...


def main(
    service: str,
    collection: str,
    open_store: Callable[[str], Awaitable[Auditable]],
    arguments: Sequence[str] | None = None,
) -> None:
    """Read the command line and do what it says. ``collection`` begins the names, such as ``runs``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {service}_service.audit",
        description=f"Fold the log of every one of the {collection} again and compare, or write the rows anew from it.",
        epilog="Exit codes: 0 all agrees, 1 something differs or failed, 2 wrong input.",
    )
    parser.add_argument("action", choices=("verify", "rebuild"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{collection}/ID or ID; all by default")
    parser.add_argument("--database", metavar="URL", help="SQLAlchemy URL; default as for the service")
    parsed = parser.parse_args(arguments)
    url = parsed.database or PathSettings.load().database_url(service)
    ids = [name.removeprefix(f"{collection}/") for name in parsed.names]
    run(_main(parsed.action, url, collection, ids, open_store))


async def _main(
    action: str, url: str, collection: str, ids: Sequence[str], open_store: Callable[[str], Awaitable[Auditable]]
) -> None:
    store = await open_store(url)
    try:
        extent = await store.extent()
        wanted = ids or [stream.removeprefix(f"{collection}/") for stream in sorted(extent)]
        if action == "rebuild":
            for id_ in wanted:
                await store.rebuild(id_)
        problems = [problem for id_ in ids or [""] for problem in await store.verify(id_)]
    finally:
        await store.close()
    for problem in problems:
        sys.stdout.write(f"{problem.stream}: {problem.text}\n")
    events = sum(extent.get(f"{collection}/{id_}", 0) for id_ in wanted)
    verdict = f"{len(problems)} differences" if problems else "numbers have no gaps, and every row is what the log says"
    sys.stdout.write(f"{len(wanted)} {collection}, {events} events: {verdict}\n")
    if problems:
        sys.exit(1)
