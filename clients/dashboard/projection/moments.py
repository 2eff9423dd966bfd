"""When something other than a trial changed the search: level 1.5, level 2, or a person."""

from __future__ import annotations

from dataclasses import dataclass

from bilevel.v1 import trace_pb2

from clients import wording
from clients.history import short

PERSON = "a person"
"""How the author of what a person did on the dashboard begins, on the trace."""


@dataclass(frozen=True, slots=True)
class Moment:
    """An act between two trials."""

    after: int
    """Number of the newest trial."""
    seconds: float
    """Since the run was created."""
    kind: str
    """configuration (level 1.5), mechanism (level 2) or person."""
    title: str
    """What happened, in a few words."""
    detail: str = ""
    """Why, or what exactly; may be text that a model wrote."""


def configuration_changed(after: int, seconds: float, what: trace_pb2.SearchConfigUpdated) -> Moment:
    """Level 1.5 or a person changed the control surface."""
    kind = "person" if what.author.startswith(PERSON) else "configuration"
    words = []
    if what.newly_frozen:
        words.append("froze " + ", ".join(reason.parameter for reason in what.newly_frozen))
    if what.newly_unfrozen:
        words.append("unfroze " + ", ".join(reason.parameter for reason in what.newly_unfrozen))
    if not words:
        words.append("changed guidance" if kind == "person" else f"strategy {what.search_config.strategy or 'unset'}")
    who = "a person" if kind == "person" else "level 1.5"
    return Moment(after, seconds, kind, f"{who}: {'; '.join(words)}", what.search_config.guidance)


def mechanism_installed(after: int, seconds: float, what: trace_pb2.MechanismInstalled) -> Moment:
    mechanism = what.mechanism
    return Moment(after, seconds, "mechanism", f"installed {short(mechanism.name)}", mechanism.summary)


def mechanism_rejected(after: int, seconds: float, what: trace_pb2.MechanismRejected) -> Moment:
    findings = "; ".join(finding.message for finding in what.report.findings)
    return Moment(after, seconds, "mechanism", f"gate refused {short(what.mechanism)}", findings)


def mechanism_suspended(after: int, seconds: float, what: trace_pb2.MechanismSuspended) -> Moment:
    why = f"{wording.hook(what.hook)} {what.kind}: {what.message}"
    return Moment(after, seconds, "mechanism", f"suspended {short(what.mechanism)}", why)


def mechanism_uninstalled(after: int, seconds: float, what: trace_pb2.MechanismUninstalled) -> Moment:
    return Moment(after, seconds, "mechanism", f"removed {short(what.mechanism)}", what.reason)
