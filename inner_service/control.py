"""Changing the control surface of level 1.5: which parameters are frozen, the strategy, the guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inner_service.run import Run, Search, SearchConfig
from inner_service.trace import FreezeReason, SearchConfigUpdated
from service_kit.errors import Conflict, InvalidArgument, InvalidConfiguration, Violation

MAX_GUIDANCE = 4000
MAX_STRATEGY = 200


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """What is to change; None leaves the strategy or the guidance as it is."""

    freeze: Sequence[FreezeReason] = ()
    unfreeze: Sequence[FreezeReason] = ()
    strategy: str | None = None
    guidance: str | None = None
    author: str = ""
    clear_history: bool = False
    """Hide all trials so far from the proposer and measure the incumbent again, as a new runner would."""
    expected_revision: int | None = None
    """The revision that the change is based on, 0 before the first change; None skips the check."""


def updated(search: Search, change: ConfigChange) -> SearchConfigUpdated:
    """The event that makes ``change``. Raises :class:`InvalidArgument` and :class:`Conflict`."""
    run, config = search.run, search.run.search_config
    if change.expected_revision not in (None, config.revision):
        raise Conflict("search configuration", run.name)
    _check(run, change)
    if change.clear_history and search.incumbent is None:
        raise InvalidArgument.of("clear_history", "needs an incumbent to measure again; the run has no baseline yet")
    freeze = [reason for reason in change.freeze if reason.parameter not in config.frozen]
    unfreeze = [reason for reason in change.unfreeze if reason.parameter in config.frozen]
    thawed = {reason.parameter for reason in unfreeze}
    kept = [name for name in config.frozen if name not in thawed]
    frozen = tuple(dict.fromkeys([*kept, *(reason.parameter for reason in freeze)]))
    if not any(p.name not in frozen for p in run.task.space.editable):
        raise InvalidArgument.of("freeze", "must leave at least one parameter active")
    after = SearchConfig(
        frozen=frozen,
        strategy=config.strategy if change.strategy is None else change.strategy,
        guidance=config.guidance if change.guidance is None else change.guidance,
        revision=config.revision + 1,
        visible_from_trial=len(search.trials) if change.clear_history else config.visible_from_trial,
    )
    return SearchConfigUpdated(after, change.author, tuple(freeze), tuple(unfreeze))


def _check(run: Run, change: ConfigChange) -> None:
    violations: list[Violation] = []
    for field, reasons in (("freeze", change.freeze), ("unfreeze", change.unfreeze)):
        for i, reason in enumerate(reasons):
            try:
                parameter = run.task.space[reason.parameter]
            except InvalidConfiguration as error:
                violations.append(Violation(f"{field}[{i}].parameter", error.violations[0].description))
                continue
            if parameter.locked:
                violations.append(Violation(f"{field}[{i}].parameter", f"{parameter.name} is locked by the task"))
    both = {r.parameter for r in change.freeze} & {r.parameter for r in change.unfreeze}
    if both:
        violations.append(Violation("unfreeze", f"must not name what freeze names: {', '.join(sorted(both))}"))
    for field, text, most in (("strategy", change.strategy, MAX_STRATEGY), ("guidance", change.guidance, MAX_GUIDANCE)):
        if text is not None and len(text) > most:
            violations.append(Violation(field, f"must have at most {most} characters; got {len(text)}"))
    if violations:
        raise InvalidArgument(violations)
