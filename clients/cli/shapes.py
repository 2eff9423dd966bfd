"""What ``--json`` prints, command by command: docs/cli.md is made from it, and tests hold commands to it.

A field may be added; none is removed, renamed or given another meaning without a new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Layout(StrEnum):
    """How many there are."""

    OBJECT = "one object"
    LIST = "a list of objects"
    LINES = "JSON lines: one object a line, as it happens"
    BY_NAME = "one object; its values, by name, are objects"
    LISTS_BY_NAME = "one object; its values, by name, are lists of objects"


@dataclass(frozen=True, slots=True)
class Shape:
    """Either a message of the protocol, or fields of our own; the same for each of the objects."""

    message: str = ""
    """Name of a message of bilevel.v1, printed with the names of the .proto file."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Meaning of each field by its name. All of them are always there."""
    layout: Layout = Layout.OBJECT
    note: str = ""


SUMMARY: Mapping[str, str] = {
    "run": "resource name",
    "title": "its display name, or its id",
    "task": "configured name of the task",
    "levels": "for example 1 + 1.5 + 2",
    "state": "finished, failed, cancelled, paused, running",
    "metric": "name of the objective's metric",
    "unit": "its unit",
    "maximize": "whether more is better",
    "seed": "seed of the search",
    "baseline": "metric of the starting configuration, or null",
    "best": "best metric measured at full budget, or null",
    "best_trial": "number of that trial, or null",
    "search_gain": "gain on the seed and data that were searched on; positive is better, or null",
    "confirmed_gain": "mean paired gain on fresh seeds, or null",
    "confirmed_low": "lower end of its 95 % interval, or null",
    "confirmed_high": "upper end, or null",
    "confirmed_split": "the search's data, held-out data, or empty",
    "confirmation_seeds": "fresh seeds measured",
    "trials": "kept or discarded, without the baseline",
    "kept": "of those, kept",
    "failed": "of those, without a metric though nobody stopped them",
    "stopped_early": "of those, stopped by the early-stopping rule",
    "audited_stops": "early stops that were not made, to check the rule, and were measured",
    "wrong_stops": "of those, the ones that were better than the incumbent after all",
    "noise": "standard deviation of the baseline over seeds, or null",
    "gains_checked": "small gains measured on a second seed",
    "gains_held": "of those, the ones that held",
    "refused": "candidates refused before they ran",
    "mechanisms_installed": "generated mechanisms",
    "mechanisms_effective": "of those, the ones that changed a decision",
    "changed_decisions": "decisions that mechanisms changed",
    "configuration_updates": "changes of the search configuration",
    "model_calls": "calls of a language model, failed ones and those that asked for a better answer included",
    "prompt_tokens": "tokens read by it",
    "completion_tokens": "tokens written by it",
    "cost_usd": "US dollars, or null where a price is unknown or, with the scripted researcher, none applies",
    "answered_by": "names of the models that answered",
    "scripted": "whether the scripted researcher answered; then nothing here is evidence for the method",
    "wall_seconds": "from the first start to the end",
    "waiting_share": "share of it in which no evaluation ran, 0 to 1",
    "paused_share": "share of it in which the run was paused and no evaluation ran, 0 to 1",
}
"""Of a run: the same numbers as in its report."""

_CONFORM = Shape(
    fields={
        "subject": "kind of service that was examined",
        "address": "where",
        "profile": "what it claims to do",
        "findings": "list of clause, title, verdict (holds, violated, advice, not seen, undecided), message, seconds",
        "called": "full names of the methods that were called",
        "conforms": "whether every MUST holds",
        "document": "the page that numbers the clauses",
    }
)
_AUDIT = Shape(
    fields={
        "streams": "names of the runs or campaigns that were looked at",
        "events": "number of their events",
        "differences": "list of stream and text; empty where all agrees",
    }
)
_NO_PRICE = "usage.cost_usd is null where the scripted researcher answered, to which no price applies."
_RUN = Shape("Run", note=_NO_PRICE)
_MECHANISM = Shape("Mechanism")

SHAPES: Mapping[str, Shape] = {
    "demo": Shape(
        fields={
            "report": "path of report.html",
            "runs": "two summaries, as `bilevel run` prints them",
            "problems": "sentences; not empty where the demonstration failed",
        },
        note="Progress goes to standard error.",
    ),
    "demo-memory": Shape(
        fields={
            "report": "path of report.html",
            "scripted": "whether the scripted researcher answered",
            "answered_by": "names of the models that answered",
            "written_by_first": "statements of the lessons that the first run wrote",
            "second": "what lessons did in the second run, as `bilevel lessons effect` prints it",
            "first_gain": "gain of the first run over its baseline, or null",
            "second_gain": "gain of the second one, or null",
            "trials_to_first_gain": "trials until each had the gain with which the first one ended: first, second",
            "problems": "sentences; not empty where the demonstration failed",
        },
        note="Progress goes to standard error.",
    ),
    "run": Shape(
        fields={**SUMMARY, "report": "path of report.html, or null where none was written"},
        note="At the end. With --detach, at once and only: run, campaign (resource names; the latter may be empty).",
    ),
    "ablate": Shape(
        fields={
            "ablation": "its id",
            "design": "groups, repeats, trials, seeds and levels, as planned",
            "answered_by": "names of the models that answered",
            "scripted": "whether the scripted researcher answered",
            "metric": "name of the objective's metric",
            "results": "by measure, a list of rows: a group with its mean, interval and comparison",
        },
        note="Progress goes to standard error.",
    ),
    "doctor": Shape(
        fields={
            "subject": "what was looked at",
            "severity": "good, note or bad",
            "text": "what is the case",
            "advice": "what to do; may be empty",
        },
        layout=Layout.LIST,
    ),
    "certs": Shape(
        fields={
            "ca_pem": "path of the authority's certificate",
            "server_pem": "path of the server's certificate",
            "server_key": "path of its key",
            "client_pem": "path of the client's certificate",
            "client_key": "path of its key",
        }
    ),
    "watch": Shape("TraceEvent", layout=Layout.LINES, note="--after goes on behind a sequence number."),
    "runs": Shape("Run", layout=Layout.LIST, note=_NO_PRICE),
    "pause": _RUN,
    "resume": _RUN,
    "cancel": _RUN,
    "report": Shape(
        fields={"report": "path of report.html", "runs": "a summary a run, as `bilevel run` prints it"},
    ),
    "mechanisms check": Shape(
        fields={
            "verdict": "accepted or rejected",
            "stage": "the last stage that was reached",
            "findings": "why it was rejected: list of stage, message and more",
            "name": "the mechanism's name, from its docstring",
            "summary": "what it says of itself",
            "hooks": "hooks that it implements",
            "replay": "recorded and synthetic: trials, calls, changed_decisions, prompted, seconds, hooks",
            "source_sha256": "hash of the source",
            "sandbox_layers": "layers that held",
        },
        note="With --run it is the service's verdict: the message GateReport.",
    ),
    "mechanisms install": _MECHANISM,
    "mechanisms list": Shape("Mechanism", layout=Layout.LIST),
    "mechanisms show": _MECHANISM,
    "mechanisms effect": Shape("DecisionChanged", layout=Layout.LISTS_BY_NAME),
    "mechanisms remove": _MECHANISM,
    "lessons list": Shape(
        fields={"lessons": "list of the message Lesson", "next_page_token": "for --page-token; empty at the end"}
    ),
    "lessons show": Shape("Lesson"),
    "lessons effect": Shape(
        fields={
            "run": "resource name",
            "lessons": "list of name, statement, in_view, cited, cited_and_kept (numbers of trials)",
            "compared": "proposals that were asked for a second time without lessons",
            "changed": "list of trial, without_lessons, with_lessons: proposals that lessons changed",
            "library": "mechanisms that were taken from the library",
            "written": "lessons that the run wrote",
        }
    ),
    "lessons forget": Shape(fields={"forgotten": "names of the lessons"}),
    "lessons export": Shape(
        fields={"file": "path", "lessons": "number of lessons in it"},
        note="Without FILE, the exported document itself: format, lessons.",
    ),
    "lessons import": Shape(
        fields={"read": "lessons in the file", "new": "names of new ones", "known": "names of those known already"}
    ),
    "library list": Shape("LibraryEntry", layout=Layout.LIST),
    "library show": Shape("LibraryEntry"),
    "library export": Shape(fields={"file": "path", "entries": "number of entries in it"}),
    "library import": Shape("LibraryEntry", layout=Layout.LIST),
    "campaign list": Shape("Campaign", layout=Layout.LIST, note=_NO_PRICE),
    "campaign show": Shape(
        fields={"campaign": "the message Campaign", "events": "list of the message CampaignEvent"},
        note=f"In the campaign, {_NO_PRICE}",
    ),
    "prompts show": Shape(
        fields={
            "messages": "list of role and content",
            "estimated_tokens": "size of all of them",
            "prompt_version": "version of the templates; empty where it is not known",
        }
    ),
    "conform task": _CONFORM,
    "conform inner": _CONFORM,
    "conform outer": _CONFORM,
    "trace verify": _AUDIT,
    "trace rebuild": _AUDIT,
    "config show": Shape(
        fields={
            "name": "of the setting",
            "value": "as it holds; secrets hidden",
            "origin": "environment, file or default",
            "meaning": "what it does",
            "problem": "why the value is not valid; empty where it is",
        },
        layout=Layout.LIST,
    ),
    "tokens add": Shape(
        fields={
            "name": "the token's name",
            "token": "the token, shown only this once",
            "roles": "what it lets its holder do",
            "expires": "time in ISO 8601, or null",
            "file": "the token file",
        }
    ),
    "tokens list": Shape(
        fields={"roles": "list of read, drive, install", "expires": "time in ISO 8601, or null"},
        layout=Layout.BY_NAME,
    ),
    "tokens remove": Shape(fields={"removed": "the token's name", "file": "the token file"}),
}
"""By the command's words after ``bilevel``."""

EXEMPT: Mapping[str, str] = {
    f"serve {service}": "becomes the service, which prints no result; BILEVEL_LOG_FORMAT=json makes its log JSON"
    for service in ("inner", "outer", "trainer", "researcher")
} | {"dashboard": "serves a page until it is stopped and prints no result"}
"""Commands without ``--json``, each with the reason."""
