"""The prompt that asks for a change of the research procedure: what level 2 knows of its own work."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mechanisms import procedure
from mechanisms.procedure import Moment, ProcedureReport
from outer_service import records
from outer_service.digest import prompt
from outer_service.observed import Observation
from outer_service.procedures import Procedures
from outer_service.store import Store
from service_kit.llm.failures import Message

PURPOSE = "procedure"
CAMPAIGNS_READ = 20
"""Newest campaigns whose sessions a changed procedure is replayed on."""


async def recorded(store: Store) -> list[Moment]:
    """The moments at which sessions of the newest campaigns began."""
    found: list[Moment] = []
    for _, campaign in await store.campaigns(CAMPAIGNS_READ):
        found += records.moments([entry.event async for entry in store.entries(campaign.id)])
    return found


def shown(
    procedures: Procedures, moments: Sequence[Moment], report: ProcedureReport | None = None, rejected: str = ""
) -> dict[str, Any]:
    """What the template shows beside the search; ``report`` is of the source that the gate ``rejected``."""
    known = procedures.known.get(procedures.current)
    return {
        "interface": procedure.describe(),
        "current": known.source if known is not None else "",
        "tallies_before": procedures.tally(procedures.current),
        "moments": [json.dumps({**m.record, "choice": m.choice}, ensure_ascii=False) for m in moments],
        "report": report.render() if report is not None else "",
        "rejected": rejected,
    }


def request(observation: Observation, what: Mapping[str, Any], limit: int = 0) -> tuple[Message, ...]:
    """The messages that ask for a change; ``what`` is as :func:`shown` gives it.

    Raises :class:`LimitTooSmall` where they do not fit ``limit`` estimated tokens; 0 is no limit.
    """
    return prompt(PURPOSE, observation, limit=limit, **what)
