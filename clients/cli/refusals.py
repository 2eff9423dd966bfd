"""What a service refuses of a run, in the words of the command line: flags in place of the contract's fields."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service_kit.errors import InvalidArgument, RemoteError, Violation

FLAGS = {
    "spec.task": "--task",
    "spec.max_trials": "--trials",
    "spec.start": "--set",
    "spec.seed": "--seed",
    "spec.display_name": "--name",
    "spec.parallelism": "--parallel",
    "spec.parallel_mode": "--asynchronous",
    "spec.confirmation_seeds": "--confirm",
    "spec.max_tokens": "--max-tokens",
    "spec.max_cost_usd": "--max-cost",
    "spec.max_duration": "--max-time",
    "spec.max_evaluation_time": "--max-evaluation-time",
    "spec.early_stopping.rule": "--early-stopping",
    "spec.early_stopping.audit_fraction": "--audit",
    "spec.noise.baseline_repeats": "--noise-repeats",
    "spec.use_lessons": "--lessons",
    "spec.compare_lessons": "--compare-lessons",
    "policy.levels": "--levels",
    "policy.mode": "--concurrent",
    "policy.control": "--control",
    "policy.library": "--library",
    "policy.recursion": "--recursion",
    "policy.max_tokens": "--max-tokens",
    "policy.max_cost_usd": "--max-cost",
}
"""Flag of ``bilevel run`` by field."""
_WHOLE = {"page_token": "--page-token", "spec.early_stopping": "--early-stopping", "spec.noise": "--noise-repeats"}
"""Flag of what is refused as a whole."""
HINTS = {
    "spec.parallelism": "A task says how many evaluations it runs at once, in Python with @task(capacity=...).",
    "spec.early_stopping": "A task names the metric that it reports on the way, in Python with "
    "@task(intermediate_metric=...).",
}
_START = "spec.start."
_FIELD_OPTIONS = ("spec", "policy")
"""Messages whose other fields are set with the option of that name."""


def own_flags(message: str) -> dict[str, str]:
    """Flags that fields of ``spec`` or ``policy`` have of their own, by the field's path."""
    flags = {field: flag for field, flag in FLAGS.items() if field.startswith(f"{message}.")}
    return {field.removeprefix(f"{message}."): flag for field, flag in flags.items()}


@contextmanager
def in_flags() -> Iterator[None]:
    """Raise a service's INVALID_ARGUMENT as :class:`InvalidArgument` that names the flags; other errors as they are."""
    try:
        yield
    except RemoteError as error:
        if error.code != "INVALID_ARGUMENT" or not error.violations:
            raise
        hints = [HINTS[violation.field] for violation in error.violations if violation.field in HINTS]
        hint = "\n".join(filter(None, [error.hint, *hints]))
        raise InvalidArgument([_translated(violation) for violation in error.violations], hint=hint) from error


def _translated(violation: Violation) -> Violation:
    if violation.field.startswith(_START):
        return Violation("--set", f"{violation.field.removeprefix(_START)} {violation.description}")
    if (flag := (FLAGS | _WHOLE).get(violation.field)) is not None:
        return Violation(flag, violation.description)
    message, _, path = violation.field.partition(".")
    if message in _FIELD_OPTIONS and path:
        return Violation(f"--{message}", f"{path} {violation.description}")
    return violation
