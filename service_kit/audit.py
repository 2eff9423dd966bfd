"""``verify`` and ``rebuild`` for a service's database, by a process of their own; the service may run meanwhile."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from service_kit.damage import Unfoldable
from service_kit.errors import InvalidArgument, NotFound
from service_kit.eventlog import Problem
from service_kit.exit_codes import ExitCode, exit_codes
from service_kit.server import run
from service_kit.settings import PathSettings


class Auditable(Protocol):
    """A store whose rows follow from its log; ``verify`` and ``rebuild`` raise NotFound for a name it does not know."""

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
        epilog=exit_codes(done="all agrees", failed="something differs or failed"),
    )
    parser.add_argument("action", choices=("verify", "rebuild"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{collection}/ID or ID; all by default")
    parser.add_argument("--database", metavar="URL", help="SQLAlchemy URL; default as for the service")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parsed = parser.parse_args(arguments)
    url = parsed.database or PathSettings.load().database_url(service)
    ids = [name.removeprefix(f"{collection}/") for name in parsed.names]
    opening = _blaming(open_store, bool(parsed.database))
    run(_main(parsed.action, url, collection, ids, opening, as_json=parsed.json), json=parsed.json)


def _blaming(open_store: Callable[[str], Awaitable[Auditable]], given: bool) -> Callable[[str], Awaitable[Auditable]]:
    """Let what is wrong with the URL be the option's fault where that gave it, and else say that there is an option."""

    async def opening(url: str) -> Auditable:
        try:
            return await open_store(url)
        except InvalidArgument as error:
            if not given:
                hint = error.hint or "--database URL names another database, --service says whose it is."
                raise InvalidArgument(error.violations, hint=hint) from None
            violations = [replace(violation, field="--database") for violation in error.violations]
            raise InvalidArgument(violations, hint=error.hint) from None

    return opening


async def _main(
    action: str,
    url: str,
    collection: str,
    ids: Sequence[str],
    open_store: Callable[[str], Awaitable[Auditable]],
    *,
    as_json: bool,
) -> None:
    store = await open_store(url)
    try:
        extent = await store.extent()
        problems = await _verified(store, ids)
        wanted = ids or [stream.removeprefix(f"{collection}/") for stream in sorted(extent) if "/" in stream]
        if action == "rebuild":
            for id_ in wanted:
                with suppress(Unfoldable, NotFound):  # where the log is damaged or gone, which verifying says
                    await store.rebuild(id_)
            problems = await _verified(store, ids)
    finally:
        await store.close()
    events = sum(extent.get(f"{collection}/{id_}", 0) for id_ in wanted)
    if as_json:
        differences = [{"stream": problem.stream, "text": problem.text} for problem in problems]
        names = [f"{collection}/{id_}" for id_ in wanted]
        sys.stdout.write(json.dumps({"streams": names, "events": events, "differences": differences}, indent=2) + "\n")
    else:
        for problem in problems:
            sys.stdout.write(f"{problem.stream}: {problem.text}\n")
        agrees = "numbers have no gaps, and every row is what the log says"
        verdict = _count(len(problems), "difference") if problems else agrees
        read = f"{_count(len(wanted), collection.removesuffix('s'))}, {_count(events, 'event')}"
        sys.stdout.write(f"{read}: {verdict}\n")
    if problems:
        sys.exit(ExitCode.FAILED)


async def _verified(store: Auditable, ids: Sequence[str]) -> list[Problem]:
    try:
        return [problem for id_ in ids or [""] for problem in await store.verify(id_)]
    except NotFound as error:
        hint = "Leave the name out to look at all; --service says whose database it is, --database which."
        raise NotFound(error.resource, error.name, hint) from None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
