"""Checking what a run is asked to do, against the task that it names."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

from inner_service.early_stopping import EarlyStopping
from inner_service.noise import NoiseRule
from inner_service.run import RunSpec
from inner_service.task import TaskDescription
from service_kit.errors import InvalidArgument, InvalidConfiguration, Violation

MAX_TRIALS = 100_000
MAX_CONFIRMATION_SEEDS = 1000
MAX_CURVES = 1000


def check_spec(spec: RunSpec, *, priced: bool) -> None:
    """Everything that does not depend on the task. Raises :class:`InvalidArgument` with all violations.

    ``priced`` says whether the model's price is known, without which a budget in money cannot be kept.
    """
    wrong: list[Violation] = []

    def within(field: str, value: int, low: int, high: int) -> None:
        if not low <= value <= high:
            wrong.append(Violation(f"spec.{field}", f"must be from {low} to {high}; got {value}"))

    if not spec.task:
        wrong.append(Violation("spec.task", "must be the name of a configured task; ListTasks gives them"))
    within("max_trials", spec.max_trials, 1, MAX_TRIALS)
    within("checkpoint_every", spec.checkpoint_every, 0, MAX_TRIALS)
    within("confirmation_seeds", spec.confirmation_seeds, 0, MAX_CONFIRMATION_SEEDS)
    if spec.max_tokens < 0:
        wrong.append(Violation("spec.max_tokens", f"must be at least 0, where 0 is no limit; got {spec.max_tokens}"))
    for field, limit in (("max_duration", spec.max_duration), ("max_evaluation_time", spec.max_evaluation_time)):
        if limit is not None and limit <= timedelta():
            wrong.append(Violation(f"spec.{field}", "must be longer than 0 s; leave it out for no limit"))
    if not (math.isfinite(spec.max_cost_usd) and spec.max_cost_usd >= 0):
        said = f"must be a finite number of at least 0, where 0 is no limit; got {spec.max_cost_usd}"
        wrong.append(Violation("spec.max_cost_usd", said))
    elif spec.max_cost_usd and not priced:
        said = "needs the model's price: start the inner service with BILEVEL_PRICE_INPUT and BILEVEL_PRICE_OUTPUT"
        wrong.append(Violation("spec.max_cost_usd", said))
    wrong += _early_stopping(spec.early_stopping) if spec.early_stopping is not None else []
    wrong += _noise(spec.noise) if spec.noise is not None else []
    if len(spec.display_name) > 200:
        got = len(spec.display_name)
        wrong.append(Violation("spec.display_name", f"must have at most 200 characters; got {got}"))
    if spec.compare_lessons and not spec.use_lessons:
        wrong.append(Violation("spec.compare_lessons", "compares proposals with and without lessons: set use_lessons"))
    if wrong:
        raise InvalidArgument(wrong)


def _early_stopping(settings: EarlyStopping) -> list[Violation]:
    """``min_curves`` starts at 3 because an interval needs two degrees of freedom to mean anything."""
    wrong = []
    if not 0 <= settings.grace_fraction < 1:
        said = f"must be from 0 to below 1; got {settings.grace_fraction:g}"
        wrong.append(Violation("spec.early_stopping.grace_fraction", said))
    if not 3 <= settings.min_curves <= MAX_CURVES:
        said = f"must be from 3 to {MAX_CURVES}; got {settings.min_curves}"
        wrong.append(Violation("spec.early_stopping.min_curves", said))
    if not 0 <= settings.audit_fraction <= 1:
        said = f"must be from 0 to 1; got {settings.audit_fraction:g}"
        wrong.append(Violation("spec.early_stopping.audit_fraction", said))
    if not 0.5 <= settings.confidence < 1:
        said = f"must be from 0.5 to below 1; got {settings.confidence:g}"
        wrong.append(Violation("spec.early_stopping.confidence", said))
    return wrong


def _noise(rule: NoiseRule) -> list[Violation]:
    wrong = []
    if not 2 <= rule.baseline_repeats <= MAX_CONFIRMATION_SEEDS:
        said = f"must be from 2 to {MAX_CONFIRMATION_SEEDS}; got {rule.baseline_repeats}"
        wrong.append(Violation("spec.noise.baseline_repeats", said))
    if not 0 < rule.multiple <= 100:
        wrong.append(Violation("spec.noise.multiple", f"must be above 0 and at most 100; got {rule.multiple:g}"))
    return wrong


def fitted(spec: RunSpec, task: TaskDescription) -> RunSpec:
    """The spec with its starting configuration typed. Raises :class:`InvalidArgument` with all violations."""
    wrong: list[Violation] = []
    parallelism, start = spec.parallelism or 1, spec.start
    if not 1 <= parallelism <= task.capacity:
        description = f"must be from 1 to {task.capacity}, which is how many evaluations the task runs at once"
        if task.capacity == 1:
            description = "must be 1: the task runs one evaluation at a time"
        wrong.append(Violation("spec.parallelism", f"{description}; got {spec.parallelism}"))
    if spec.early_stopping is not None and not task.intermediate_metric:
        description = f"must be left out: the task {task.name} names no intermediate_metric to judge a trial by"
        wrong.append(Violation("spec.early_stopping", description))
    try:
        complete = task.space.validate(spec.start)
        start = {name: complete[name] for name in spec.start}
    except InvalidConfiguration as error:
        wrong += [Violation(f"spec.start.{v.field}", v.description) for v in error.violations]
    if wrong:
        raise InvalidArgument(wrong)
    return replace(spec, parallelism=parallelism, start=start)
