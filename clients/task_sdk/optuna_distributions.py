"""Optuna's distributions, known by what they are called: Optuna itself is not needed to read them.

See https://optuna.readthedocs.io/en/stable/reference/distributions.html.
"""

from __future__ import annotations

from typing import Any

from clients.task_sdk.problems import Problem


def dimension_arguments(written: object) -> tuple[str, dict[str, Any]] | None:
    """Kind (``real``, ``integer`` or ``choice``) and arguments of the dimension that ``written`` means.

    None when it is not Optuna's. Raises :class:`Problem` for a distribution that no parameter can express.
    """
    kind = type(written)
    if kind.__module__.partition(".")[0] != "optuna" or not kind.__name__.endswith("Distribution"):
        return None
    facts: Any = written
    match kind.__name__:
        case "FloatDistribution":
            return "real", {"low": facts.low, "high": facts.high, "log": facts.log, "step": facts.step}
        case "IntDistribution":
            step = facts.step if facts.step != 1 else None
            return "integer", {"low": facts.low, "high": facts.high, "log": facts.log, "step": step}
        case "CategoricalDistribution":
            return "choice", {"choices": facts.choices}
        case name:
            raise Problem(f"{name} is not read: use FloatDistribution, IntDistribution or CategoricalDistribution")
