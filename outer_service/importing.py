"""Taking a mechanism from elsewhere into the library: compiled in the sandbox, and run nowhere until a campaign tries
it under the whole gate."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from mechanisms import gate
from mechanisms.interface import Hook
from mechanisms.report import GateReport
from mechanisms.sandbox.failures import SandboxUnavailable
from mechanisms.sandbox.limits import SandboxPolicy
from outer_service.library import LibraryEntry, LibraryOrigin, LibraryTrial
from service_kit.errors import InvalidArgument, ServiceError, Violation
from service_kit.parameters import Kind, Objective, Parameter, ParameterSpace

TEXT_CHARACTERS = 500
"""Longest author, title or reference of an imported entry."""
MOST_TRIALS = 1000
_SPACE = ParameterSpace((Parameter("x", Kind.REAL, 0.0, minimum=0.0, maximum=1.0),))
"""A source is only compiled: no hook sees a space."""
_TITLE = re.compile(r"[a-z][a-z0-9-]{0,47}")


async def imported(
    source: str,
    *,
    title: str,
    author: str,
    derived_from: str,
    task: str,
    model: str,
    scripted: bool,
    trials: tuple[LibraryTrial, ...],
    sandbox: SandboxPolicy,
) -> LibraryEntry:
    """The entry for ``source``; hooks and summary are read from the source, whatever a file says about them.

    Raises :class:`InvalidArgument` for texts that are too long, :class:`ServiceError` with the gate's findings for a
    source outside the language, or where this machine has no sandbox.
    """
    _check_texts(title=title, author=author, derived_from=derived_from, task=task, model=model)
    if len(trials) > MOST_TRIALS:
        raise InvalidArgument.of("entry.trials", f"must have at most {MOST_TRIALS} entries; got {len(trials)}")
    try:
        report = await gate.check(
            source, space=_SPACE, objective=Objective("x"), history=(), language_only=True, policy=sandbox
        )
    except SandboxUnavailable as error:
        hint = "Start the outer service with --allow-weak-sandbox to compile it anyway."
        raise ServiceError(str(error), hint=hint) from None
    if not report.accepted:
        raise ServiceError(f"the source is no mechanism:\n{report.render()}", hint="Nothing was imported.")
    return LibraryEntry(
        id=report.source_sha256,
        summary=report.summary,
        source=source,
        author=author or "unknown",
        session="",
        task=task,
        create_time=datetime.now(UTC),
        title=title or _title(report),
        origin=LibraryOrigin.IMPORTED,
        derived_from=derived_from,
        model=model,
        scripted=scripted,
        hooks=tuple(hook for hook in Hook if hook in report.hooks),
        trials=trials,
    )


def _check_texts(*, title: str, **texts: str) -> None:
    wrong = [
        Violation(f"entry.{field}", f"must have at most {TEXT_CHARACTERS} characters; got {len(text)}")
        for field, text in texts.items()
        if len(text) > TEXT_CHARACTERS
    ]
    if title and not _TITLE.fullmatch(title):
        said = f"must be 1 to 48 lowercase letters, digits and dashes, a letter first; got {title[:60]!r}"
        wrong.append(Violation("entry.title", said))
    if wrong:
        raise InvalidArgument(wrong)


def _title(report: GateReport) -> str:
    slug = report.name.replace("_", "-").strip("-")
    return slug if _TITLE.fullmatch(slug) else f"imported-{report.source_sha256[:12]}"
