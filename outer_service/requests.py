"""From the wire's requests to the domain's types, checked."""

from __future__ import annotations

import math

from bilevel.v1 import outer_pb2 as pb

from outer_service.campaign import (
    CONFIGURATION_EVERY,
    MAX_CYCLE_SECONDS,
    MAX_FAILURES,
    MAX_MECHANISMS,
    MECHANISM_EVERY,
    PROCEDURE_PROBATION,
    REPAIRS,
    AfterFailures,
    Control,
    Level,
    LibraryUse,
    Mode,
    Policy,
    Round,
)
from outer_service.observed import ObservedRun
from service_kit.errors import InvalidArgument, Violation
from service_kit.translate import duration_from_proto

HEARTBEAT = 5.0
"""Seconds between signs of life on an idle watch, unless the client asks for something else."""

_LEVELS = {pb.LEVEL_CONFIGURATION: Level.CONFIGURATION, pb.LEVEL_MECHANISM: Level.MECHANISM}
_MODES = {
    pb.CAMPAIGN_MODE_UNSPECIFIED: Mode.SYNCHRONOUS,
    pb.CAMPAIGN_MODE_SYNCHRONOUS: Mode.SYNCHRONOUS,
    pb.CAMPAIGN_MODE_CONCURRENT: Mode.CONCURRENT,
}
_CONTROLS = {
    pb.CONTROL_UNSPECIFIED: Control.NONE,
    pb.CONTROL_NOOP: Control.NOOP,
    pb.CONTROL_RESTART: Control.RESTART,
}
_LIBRARY = {
    pb.LIBRARY_USE_UNSPECIFIED: LibraryUse.OFFERED,
    pb.LIBRARY_USE_NONE: LibraryUse.NONE,
    pb.LIBRARY_USE_OFFERED: LibraryUse.OFFERED,
}
_CYCLE_SECONDS = (1.0, 86_400.0)
_AFTER_FAILURES = {
    pb.AFTER_FAILURES_UNSPECIFIED: AfterFailures.GO_ON,
    pb.AFTER_FAILURES_GO_ON: AfterFailures.GO_ON,
    pb.AFTER_FAILURES_PAUSE_RUN: AfterFailures.PAUSE_RUN,
}
_MOST = 100_000
_MOST_REPAIRS = 10


def policy_from_proto(message: pb.CampaignPolicy, *, priced: bool) -> Policy:
    """The policy with its defaults filled in; ``priced`` says whether the model's price is known.

    Raises :class:`InvalidArgument` with everything that is wrong.
    """
    wrong: list[Violation] = []

    def number(field: str, value: int, default: int, most: int = _MOST) -> int:
        if not 0 <= value <= most:
            wrong.append(Violation(f"policy.{field}", f"must be from 0 to {most}, where 0 is {default}; got {value}"))
        return value or default

    unknown = [level for level in message.levels if level not in _LEVELS]
    if unknown:
        wrong.append(Violation("policy.levels", f"must hold LEVEL_CONFIGURATION or LEVEL_MECHANISM; got {unknown[0]}"))
    if message.mode not in _MODES:
        said = f"must be CAMPAIGN_MODE_SYNCHRONOUS or CAMPAIGN_MODE_CONCURRENT; got {message.mode}"
        wrong.append(Violation("policy.mode", said))
    if message.control not in _CONTROLS:
        said = f"must be CONTROL_NOOP, CONTROL_RESTART or none; got {message.control}"
        wrong.append(Violation("policy.control", said))
    if message.library not in _LIBRARY:
        said = f"must be LIBRARY_USE_NONE or LIBRARY_USE_OFFERED; got {message.library}"
        wrong.append(Violation("policy.library", said))
    given = message.HasField("max_cycle_time")
    cycle_seconds = duration_from_proto(message.max_cycle_time) if given else MAX_CYCLE_SECONDS
    if not _CYCLE_SECONDS[0] <= cycle_seconds <= _CYCLE_SECONDS[1]:
        said = f"must be from {_CYCLE_SECONDS[0]:g} s to {_CYCLE_SECONDS[1]:g} s; got {cycle_seconds:g} s"
        wrong.append(Violation("policy.max_cycle_time", said))
    if message.after_failures not in _AFTER_FAILURES:
        said = f"must be AFTER_FAILURES_GO_ON or AFTER_FAILURES_PAUSE_RUN; got {message.after_failures}"
        wrong.append(Violation("policy.after_failures", said))
    repairs = message.repairs if message.HasField("repairs") else REPAIRS
    if not 0 <= repairs <= _MOST_REPAIRS:
        wrong.append(Violation("policy.repairs", f"must be from 0 to {_MOST_REPAIRS}; got {repairs}"))
    mechanism_every = number("mechanism_every", message.mechanism_every, MECHANISM_EVERY)
    probation = number("probation_trials", message.probation_trials, max(1, mechanism_every))
    policy = Policy(
        levels=tuple(dict.fromkeys(_LEVELS[level] for level in message.levels if level in _LEVELS)),
        configuration_every=number("configuration_every", message.configuration_every, CONFIGURATION_EVERY),
        mechanism_every=mechanism_every,
        mode=_MODES.get(message.mode, Mode.SYNCHRONOUS),
        repairs=repairs,
        probation_trials=probation,
        max_tokens=message.max_tokens,
        max_cost_usd=message.max_cost_usd,
        max_failures=number("max_failures", message.max_failures, MAX_FAILURES, 1000),
        control=_CONTROLS.get(message.control, Control.NONE),
        max_mechanisms=number("max_mechanisms", message.max_mechanisms, MAX_MECHANISMS, 64),
        after_failures=_AFTER_FAILURES.get(message.after_failures, AfterFailures.GO_ON),
        library=_LIBRARY.get(message.library, LibraryUse.OFFERED),
        reexamination_trials=number("reexamination_trials", message.reexamination_trials, max(1, 2 * probation)),
        max_cycle_seconds=cycle_seconds,
        recursion=message.recursion,
        procedure_probation=number("procedure_probation", message.procedure_probation, PROCEDURE_PROBATION, 1000),
    )
    wrong += _combinations(policy, priced)
    if wrong:
        raise InvalidArgument(wrong)
    return policy


def _combinations(policy: Policy, priced: bool) -> list[Violation]:
    wrong: list[Violation] = []
    every = policy.configuration_every
    if len(policy.levels) == 2 and every > 0 and policy.mechanism_every % every:
        said = f"must be a multiple of configuration_every ({every}) when both levels are on"
        wrong.append(Violation("policy.mechanism_every", f"{said}; got {policy.mechanism_every}"))
    if policy.control is not Control.NONE and Level.MECHANISM not in policy.levels:
        wrong.append(Violation("policy.control", "takes the place of level 2: levels must hold LEVEL_MECHANISM"))
    if policy.max_tokens < 0:
        wrong.append(
            Violation("policy.max_tokens", f"must be at least 0, where 0 is no limit; got {policy.max_tokens}")
        )
    if not (math.isfinite(policy.max_cost_usd) and policy.max_cost_usd >= 0):
        said = f"must be a finite number of at least 0, where 0 is no limit; got {policy.max_cost_usd}"
        wrong.append(Violation("policy.max_cost_usd", said))
    elif policy.max_cost_usd and not priced:
        said = (
            "needs the model's price: start the outer service with BILEVEL_PRICES, or BILEVEL_PRICE_INPUT and _OUTPUT"
        )
        wrong.append(Violation("policy.max_cost_usd", said))
    return wrong


def check_checkpoint(run: ObservedRun, policy: Policy) -> None:
    """Whether the run pauses where the policy needs it. Raises :class:`InvalidArgument` naming the fields."""
    every = run.checkpoint_every
    if policy.mode is Mode.CONCURRENT and every:
        raise InvalidArgument.of(
            "policy.mode",
            f"CAMPAIGN_MODE_CONCURRENT never pauses a run, but {run.name} has spec.checkpoint_every = {every}",
            hint="Create the run with checkpoint_every = 0, or use CAMPAIGN_MODE_SYNCHRONOUS.",
        )
    if policy.mode is Mode.SYNCHRONOUS and policy.levels and (not every or policy.checkpoint % every):
        fields = [
            "configuration_every" if level is Level.CONFIGURATION else "mechanism_every" for level in policy.levels
        ]
        wanted = policy.checkpoint
        said = f"{run.name} has spec.checkpoint_every = {every}; it must divide {wanted} and not be 0"
        raise InvalidArgument(
            [Violation(f"policy.{field}", said) for field in fields],
            hint=f"Create the run with checkpoint_every = {wanted}, or use CAMPAIGN_MODE_CONCURRENT with 0.",
        )


def research_round(value: pb.ResearchRound.ValueType) -> Round | None:
    """A round of research; None for level 1.5. Raises :class:`InvalidArgument` for an unknown one."""
    if value == pb.RESEARCH_ROUND_UNSPECIFIED:
        return None
    try:
        return Round(pb.ResearchRound.Name(value).removeprefix("RESEARCH_ROUND_").lower())
    except ValueError:
        raise InvalidArgument.of("round", f"must be a ResearchRound; got {value}") from None


def request_id(text: str) -> str:
    """A request id of acceptable length. Raises :class:`InvalidArgument`."""
    if len(text) > 64:
        raise InvalidArgument.of("request_id", f"must have at most 64 characters; got {len(text)}")
    return text


def reason(text: str, default: str) -> str:
    """A person's reason. Raises :class:`InvalidArgument` for one that is too long."""
    if len(text) > 2000:
        raise InvalidArgument.of("reason", f"must have at most 2000 characters; got {len(text)}")
    return text or default


def heartbeat(request: pb.WatchCampaignRequest) -> float:
    """Seconds."""
    seconds = duration_from_proto(request.heartbeat) if request.HasField("heartbeat") else HEARTBEAT
    if not 0.1 <= seconds <= 3600:
        raise InvalidArgument.of("heartbeat", f"must be from 0.1 s to 3600 s; got {seconds:g} s")
    return seconds
