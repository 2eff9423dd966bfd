"""``@task``: a function and a parameter space become a :class:`Task`, checked where they are written."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.task_sdk.evaluation import Context, Infeasible
from clients.task_sdk.problems import InvalidTask
from clients.task_sdk.sandboxed import source_violations
from clients.task_sdk.signatures import Function, arguments_problems, name_of, own_defaults
from clients.task_sdk.spaces import Source, read_space
from service_kit.parameters import Configuration, Direction, Objective, ParameterSpace, Violation

if TYPE_CHECKING:
    from service_kit.server import ServerSettings

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")

Check = Callable[..., bool]


class CheckFailed(Exception):
    """A check of the author's raised or answered neither True nor False."""


@dataclass(frozen=True, slots=True)
class Conduct:
    """How evaluations are run."""

    budget: float
    """Seconds of a full evaluation."""
    hard_limit: float
    """Wall-clock seconds after which an evaluation is killed."""
    capacity: int
    """Evaluations at a time."""
    fresh_process: bool
    """Whether every evaluation gets a process of its own."""
    cleanup_seconds: float
    """Seconds between SIGTERM and the kill when an evaluation is cancelled; 0 kills at once."""
    memory_mb: float | None
    """Memory that an evaluation may take beyond that of the bare interpreter with the author's module."""


@dataclass(eq=False)
class Task:
    """What :func:`task` makes of a function. It can still be called like the function."""

    function: Function
    name: str
    title: str
    documentation: str
    objective: Objective
    conduct: Conduct
    held_out: bool
    deterministic: bool
    hardware: str
    intermediate_metric: str
    """What the function reports on the way that estimates its metric; empty for nothing."""
    identity: Mapping[str, str]
    sources: tuple[Path, ...]
    """Files beside the author's module that a language model should read."""
    _space: ParameterSpace
    _defines: Mapping[str, str]
    """What each source parameter must define, where it says so."""
    _checks: list[Check] = field(default_factory=list)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, here and now; a context is made up where it takes one and none is given."""
        if "context" in inspect.signature(self.function).parameters:
            kwargs.setdefault("context", Context())
        return self.function(*args, **kwargs)

    @property
    def space(self) -> ParameterSpace:
        """The parameters, with the sentences of the checks as constraints."""
        return replace(self._space, constraints=tuple(_sentence(check) for check in self._checks))

    @property
    def file(self) -> Path:
        """The author's module."""
        return Path(inspect.getfile(self.function)).resolve()

    def check(self, check: Check) -> Check:
        """Decorator: a cheap condition on several parameters, for Validate and before every evaluation.

        It takes some of the parameters by name and returns whether they fit together; its docstring is the sentence
        that says which do. It may raise :class:`Infeasible` with a sentence of its own. Raises :class:`InvalidTask`.
        """
        problems = arguments_problems(check, self._space.names, every=False)
        if not (check.__doc__ or "").strip():
            problems.append("has no docstring: say there, in a sentence, which combinations are allowed")
        if problems:
            raise InvalidTask(self.name, [f"check {name_of(check)} {problem}" for problem in problems])
        self._checks.append(check)
        return check

    def violations(self, configuration: Configuration) -> list[Violation]:
        """What is wrong with source code, and what the author's checks find wrong. Not for an event loop's thread.

        Raises :class:`CheckFailed` naming the check and its mistake.
        """
        found = [
            violation
            for name, defines in self._defines.items()
            for violation in source_violations(name, str(configuration[name]), defines)
        ]
        for check in self._checks if not found else ():
            names = inspect.signature(check).parameters
            field_ = next(iter(names)) if len(names) == 1 else ""
            try:
                fits = check(**{name: configuration[name] for name in names})
            except Infeasible as refusal:
                found.append(Violation(field_, str(refusal) or _sentence(check)))
                continue
            except Exception as error:
                raise CheckFailed(f"its check {name_of(check)} raised {type(error).__name__}: {error}") from error
            if not isinstance(fits, bool):
                raise CheckFailed(f"its check {name_of(check)} must return True or False; got {fits!r}")
            if not fits:
                found.append(Violation(field_, _sentence(check)))
        return found

    def serve(self, arguments: Sequence[str] | None = None) -> None:
        """The task's command line: serves it until SIGTERM; ``--help`` shows the rest. By default of ``sys.argv``."""
        from clients.task_sdk.command_line import main

        main(self, arguments)

    def serving(self, settings: ServerSettings | None = None) -> AbstractAsyncContextManager[str]:
        """The task served for the length of an ``async with`` block, which receives the bound address."""
        from clients.task_sdk.serving import serving
        from service_kit.server import ServerSettings

        return serving(self, settings or ServerSettings())


def task(
    *,
    metric: str,
    goal: str,
    space: Mapping[str, object],
    unit: str = "",
    name: str = "",
    title: str = "",
    budget: float = 60.0,
    hard_limit: float | None = None,
    capacity: int = 1,
    held_out: bool = False,
    deterministic: bool = False,
    intermediate_metric: str = "",
    sources: Sequence[str | Path] = (),
    identity: Mapping[str, str] | None = None,
    hardware: str = "",
    fresh_process: bool = True,
    cleanup_seconds: float = 0.0,
    memory_mb: float | None = None,
) -> Callable[[Function], Task]:
    """Make a task of a function that takes the parameters of ``space`` by name and returns the metric.

    The function may take ``context`` (:class:`~clients.task_sdk.Context`) too, may be ``async``, and may return a
    :class:`~clients.task_sdk.Result`. Its docstring is the task's title (first line) and documentation.

    Args:
        metric: Name of what the function returns, for example ``latency_ms``; ``unit`` is its unit.
        goal: ``minimize`` or ``maximize``.
        space: Parameters by name; see :mod:`clients.task_sdk.spaces` for what may be written.
        name: Lower-case letters, digits and dashes; by default from the function's name.
        budget: Seconds of a full evaluation, which the function is told as ``context.budget_seconds``.
        hard_limit: Wall-clock seconds after which an evaluation is killed; by default twice the budget and 30 more.
        capacity: Evaluations at a time. More than one disturbs measurements of time.
        held_out: Whether the function measures on other data when ``context.split`` is ``Split.HELD_OUT``.
        deterministic: Whether one configuration with one seed always gives exactly the same metric.
        intermediate_metric: Name of a measurement in ``context.report`` that estimates the metric on the way and is
            comparable between full evaluations at equal fractions. Early stopping needs it.
        sources: More files to show to a language model, relative to the function's own file, which is always shown.
        identity: What results depend on beside the code, for example the hash of a data set.
        hardware: What evaluates; by default this machine's processor.
        fresh_process: False reuses a process after an evaluation that ended well: imports are paid for once.
        cleanup_seconds: Time for ``finally`` blocks when an evaluation is cancelled, before it is killed whole.
        memory_mb: Memory that an evaluation may take; beyond it the system refuses more (Linux).

    Raises :class:`InvalidTask` with everything that is wrong, as soon as the decorator is applied.
    """

    def define(function: Function) -> Task:
        known, problems = read_space(space, own_defaults(function))
        problems += [f"function {name_of(function)} {p}" for p in arguments_problems(function, tuple(space))]
        chosen = name or name_of(function).strip("_").replace("_", "-").lower()
        folder = Path(inspect.getfile(function)).resolve().parent
        files = tuple(folder / source for source in sources)
        problems += _settings_problems(chosen, metric, goal, budget, hard_limit, capacity, memory_mb, cleanup_seconds)
        problems += [f"sources: {file} does not exist" for file in files if not file.is_file()]
        if problems:
            raise InvalidTask(chosen, problems)
        documentation = inspect.getdoc(function) or ""
        return Task(
            function=function,
            name=chosen,
            title=title or documentation.partition("\n")[0] or chosen,
            documentation=documentation,
            objective=Objective(metric, Direction(goal), unit),
            conduct=Conduct(
                budget,
                hard_limit if hard_limit is not None else 2 * budget + 30,
                capacity,
                fresh_process,
                cleanup_seconds,
                memory_mb,
            ),
            held_out=held_out,
            deterministic=deterministic,
            intermediate_metric=intermediate_metric,
            hardware=hardware,
            identity=dict(identity or {}),
            sources=files,
            _space=known,
            _defines={n: d.defines for n, d in space.items() if isinstance(d, Source) and d.defines},
        )

    return define


def _settings_problems(
    name: str,
    metric: str,
    goal: str,
    budget: float,
    hard_limit: float | None,
    capacity: int,
    memory_mb: float | None,
    cleanup_seconds: float,
) -> list[str]:
    """What is wrong with the decorator's other arguments."""
    problems = []
    if not _NAME.fullmatch(name):
        problems.append(
            f"name must be lower-case letters, digits and dashes, a letter first; got {name!r}: give name=…"
        )
    if not metric:
        problems.append("metric must not be empty: name what the function returns")
    if goal not in tuple(Direction):
        problems.append(f"goal must be minimize or maximize; got {goal!r}")
    for field_, seconds in (("budget", budget), ("hard_limit", hard_limit), ("memory_mb", memory_mb)):
        if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
            problems.append(f"{field_} must be above 0; got {seconds!r}")
    if not (math.isfinite(cleanup_seconds) and cleanup_seconds >= 0):
        problems.append(f"cleanup_seconds must be 0 or more; got {cleanup_seconds!r}")
    if type(capacity) is not int or capacity < 1:
        problems.append(f"capacity must be a whole number of at least 1; got {capacity!r}")
    return problems


def _sentence(check: Check) -> str:
    return inspect.cleandoc(check.__doc__ or "")
