"""From what a person types to what the services know: runs, typed values, JSON on standard output."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilevel.v1 import outer_pb2

    from clients.inner import InnerClient
    from clients.outer import OuterClient
    from service_kit.parameters import Value


MOST_RUNS = 100_000
"""Newest runs, and campaigns, among which one is found by its display name."""


async def find_run(inner: InnerClient, text: str) -> str:
    """Resource name of a run: from a full name, an id, a display name, or ``latest``; an id goes before a name.

    Raises NotFound where there is none, which names the nearest, and InvalidArgument listing the ids where several bear
    the name.
    """
    from service_kit.errors import InvalidArgument, NotFound, RemoteError

    if text.startswith("runs/"):
        return text
    if text != "latest":
        try:
            return (await inner.get_run(f"runs/{text}")).name
        except RemoteError as error:
            if error.code not in ("NOT_FOUND", "INVALID_ARGUMENT"):
                raise
            runs = await inner.list_runs(MOST_RUNS)
            named = [run.name for run in runs if run.spec.display_name == text]
            if not named:
                known = [
                    word for run in runs for word in (run.name.removeprefix("runs/"), run.spec.display_name) if word
                ]
                hint = f"{_nearest(text, known)}`bilevel runs` lists those that exist."
                raise NotFound("run", f"runs/{text}", hint) from None
            if len(named) > 1:
                ids = ", ".join(name.removeprefix("runs/") for name in named)
                raise InvalidArgument.of("RUN", f"must be one run; several are named {text!r}: {ids}") from None
            return named[0]
    runs = await inner.list_runs(limit=1)
    if not runs:
        raise NotFound("run", "latest", hint="There are no runs yet: start one with `bilevel run`.")
    return runs[0].name


def _nearest(text: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(text, known, n=1)
    return f"Did you mean {found[0]}? " if found else ""


async def find_campaign(outer: OuterClient, inner: InnerClient, text: str) -> str:
    """Resource name of a campaign: from its name or id, ``latest``, or the name, id or display name of its run.

    Raises NotFound where there is none, which says whether the run exists, and InvalidArgument listing the ids where
    several fit.
    """
    from service_kit.errors import NotFound

    campaigns = await outer.list_campaigns(MOST_RUNS)
    if text == "latest":
        if not campaigns:
            raise NotFound("campaign", text, hint="Start one with `bilevel run --levels 1,1.5,2`.")
        return campaigns[0].name
    if text.startswith("campaigns/"):
        return text
    if any(campaign.name == f"campaigns/{text}" for campaign in campaigns):
        return f"campaigns/{text}"
    runs = {text, f"runs/{text}"}
    if found := [campaign for campaign in campaigns if campaign.run in runs]:
        return _one_campaign(text, found)
    named = [run.name for run in await inner.list_runs(MOST_RUNS) if run.name in runs or run.spec.display_name == text]
    found = [campaign for campaign in campaigns if campaign.run in named]
    if not found and named:
        hint = "The run has none: no outer loop supervises it. `bilevel run --levels 1,1.5,2` starts one that has."
        raise NotFound("campaign of", named[0], hint)
    if not found:
        hint = "`bilevel campaign list` lists those that exist, `bilevel runs` the runs."
        raise NotFound("campaign", text, hint)
    return _one_campaign(text, found)


def _one_campaign(text: str, found: Sequence[outer_pb2.Campaign]) -> str:
    from service_kit.errors import InvalidArgument

    if len(found) > 1:
        ids = ", ".join(f"{campaign.name.removeprefix('campaigns/')} ({campaign.run})" for campaign in found)
        raise InvalidArgument.of("CAMPAIGN", f"must be one campaign; several fit {text!r}: {ids}")
    return found[0].name


async def read_start(inner: InnerClient, task: str, settings: Sequence[str]) -> dict[str, Value]:
    """``NAME=VALUE`` texts as typed values of a task's space.

    Raises InvalidArgument and InvalidConfiguration naming the parameter and what is allowed, and RemoteError for a task
    that the service does not know.
    """
    from service_kit.errors import InvalidConfiguration, Unavailable
    from service_kit.translate import space_from_proto
    from service_kit.typed_text import parse_value

    texts = split_settings(settings)
    if not texts:
        return {}
    [found] = await inner.list_tasks([task])
    if not found.HasField("description"):
        raise Unavailable(f"task {task!r}", hint=found.error)
    space = space_from_proto(found.description.space)
    try:
        return {name: parse_value(space[name], text) for name, text in texts.items()}
    except InvalidConfiguration as error:
        error.hint = f"Parameters of the task {task!r}: {', '.join(p.name for p in space.parameters)}."
        raise


def split_settings(settings: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts by name. Raises InvalidArgument for one without a value and for a name given twice."""
    from service_kit.errors import InvalidArgument

    texts: dict[str, str] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals:
            raise InvalidArgument.of("--set", f"must be NAME=VALUE, for example DEPTH=4; got {setting!r}")
        if name in texts:
            raise InvalidArgument.of("--set", f"must name each parameter once; {name} is given twice")
        texts[name] = text
    return texts


def check_folder(folder: Path, option: str) -> None:
    """Raise InvalidArgument naming ``option`` where nothing could be written into ``folder``; creates nothing."""
    from service_kit.errors import InvalidArgument

    nearest = folder.absolute()
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise InvalidArgument.of(option, f"must be a folder; {nearest} is not one")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InvalidArgument.of(option, f"must be a folder that can be written; {nearest} cannot")


async def reachable_outer(outer: OuterClient) -> OuterClient | None:
    """The client, or None when its service cannot be reached: a run of level 1 needs none."""
    from service_kit.errors import RemoteError

    try:
        await outer.connection.healthy(timeout=3.0)
    except RemoteError as error:
        if error.code == "UNAVAILABLE":
            return None
        raise
    return outer


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_json_line(document: Any) -> None:
    """One JSON document on one line, at once."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()
