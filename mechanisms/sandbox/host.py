"""A mechanism as its host sees it: typed hooks over a jailed worker, every answer judged, every failure final."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

from mechanisms.interface import Candidate, Hook, SearchView, TrialRecord
from mechanisms.printable import one_line
from mechanisms.sandbox import contract
from mechanisms.sandbox.answers import WorkerFailure, opened, refusals
from mechanisms.sandbox.channel import Channel, ChannelFailure
from mechanisms.sandbox.failures import FailureKind, MechanismFailure, MechanismRejected, SandboxUnavailable
from mechanisms.sandbox.limits import SandboxLimits, SandboxPolicy
from service_kit.parameters import Configuration, Objective, ParameterSpace, configuration_to_json

__all__ = [
    "FailureKind",
    "MechanismFailure",
    "MechanismProcess",
    "MechanismRejected",
    "SandboxLimits",
    "SandboxPolicy",
    "SandboxUnavailable",
]

T = TypeVar("T")
_LIMITS = SandboxLimits()
_POLICY = SandboxPolicy()


class MechanismProcess:
    """One mechanism in one worker process. Calls are serialised; after a MechanismFailure the worker is dead.

    The host's duties: :meth:`observe` every decided trial once, in order, before a view shows it.
    """

    def __init__(self, channel: Channel, name: str, space: ParameterSpace, limits: SandboxLimits) -> None:
        self.name = name
        self.title = ""
        """A slug from the class docstring."""
        self.summary = ""
        """The first line of the class docstring."""
        self.hooks: frozenset[Hook] = frozenset()
        """What it implements."""
        self.seconds = 0.0
        """Time that its calls took so far, measured on the host."""
        self.state_hash = ""
        """A digest of its state after the newest observation, also for a mechanism that has no ``observe``. Equal after
        a replay of the same observations, unless other hooks changed the state in between."""
        self._channel = channel
        self._space = space
        self._limits = limits
        self._observed: list[int] = []
        self._known: set[int] = set()
        self._hash = hashlib.sha256()
        self._vetoes: deque[bool] = deque(maxlen=limits.veto_window)
        self._tried: set[str] = set()
        self._repeated = 0

    @classmethod
    async def start(
        cls,
        source: str,
        space: ParameterSpace,
        objective: Objective,
        settings: Mapping[str, Any],
        seed: int,
        *,
        name: str,
        limits: SandboxLimits = _LIMITS,
        policy: SandboxPolicy = _POLICY,
    ) -> MechanismProcess:
        """Start a worker, compile ``source`` in it and construct its mechanism.

        Raises :class:`MechanismRejected` for a source outside the language or without the shape of a mechanism,
        :class:`MechanismFailure` when its ``__init__`` fails, :class:`SandboxUnavailable` when this machine cannot
        run mechanisms, ValueError for a source that is too large to send.
        """
        channel = await Channel.start(limits, policy)
        process = cls(channel, name, space, limits)
        try:
            described = await process._install(source, objective, settings, seed, language_only=False)
            process._describe(described)
        except BaseException:
            await channel.close()
            raise
        return process

    @classmethod
    async def check_language(
        cls,
        source: str,
        space: ParameterSpace,
        objective: Objective,
        *,
        limits: SandboxLimits = _LIMITS,
        policy: SandboxPolicy = _POLICY,
    ) -> MechanismProcess:
        """Compile ``source`` in a worker and construct nothing: what it declares, in a process that has ended.

        Raises like :meth:`start`.
        """
        channel = await Channel.start(limits, policy)
        process = cls(channel, "check", space, limits)
        try:
            process._describe(await process._install(source, objective, {}, 0, language_only=True))
        finally:
            await channel.close()
        return process

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def layers(self) -> tuple[str, ...]:
        """The sandbox layers that hold for this worker."""
        return self._channel.layers

    @property
    def alive(self) -> bool:
        """Whether the worker still runs."""
        return self._channel.alive

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._channel.pid

    @property
    def output_hash(self) -> str:
        """SHA-256 over every answer so far, in order: equal for equal sources, seeds and questions."""
        return self._hash.hexdigest()

    async def observe(self, trial: TrialRecord) -> None:
        """Show a decided trial. Every mechanism gets each trial once, whether or not it implements the hook."""
        operation = "call" if Hook.OBSERVE in self.hooks else "remember"
        self.state_hash = await self._call(Hook.OBSERVE, {"op": operation, "trial": trial.to_json()}, contract.digest)
        self._observed.append(trial.number)
        self._known.add(trial.number)
        self._tried.add(_key(trial.configuration))

    async def prompt(self, view: SearchView) -> str:
        """Text for the proposer's prompt; empty when it has nothing to say."""
        return await self._ask(Hook.PROMPT, view, {}, lambda answer: contract.prompt_text(answer, self._limits))

    async def propose(self, view: SearchView, count: int) -> tuple[Candidate, ...]:
        """At most ``count`` candidates of its own; they carry this mechanism's name."""

        def judge(answer: Any) -> tuple[Candidate, ...]:
            made = contract.proposals(answer, count, view, self._space, self._limits)
            self._check_repetition(view, made)
            return tuple(Candidate(c.changes, c.hypothesis, c.origin, self.name) for c in made)

        return await self._ask(Hook.PROPOSE, view, {"count": count}, judge)

    async def revise(self, view: SearchView, candidate: Candidate) -> Candidate:
        """The candidate to run instead of ``candidate``, which may be the same."""

        def judge(answer: Any) -> Candidate:
            return contract.revision(answer, candidate, view, self._space, self._limits)

        return await self._ask(Hook.REVISE, view, {"candidate": candidate.to_json()}, judge)

    async def veto(self, view: SearchView, candidate: Candidate) -> str | None:
        """Why ``candidate`` must not run, or None."""

        def judge(answer: Any) -> str | None:
            reason = contract.reason(answer, self._limits)
            self._check_vetoes(reason is not None)
            return reason

        return await self._ask(Hook.VETO, view, {"candidate": candidate.to_json()}, judge)

    async def rank(self, view: SearchView, candidates: Sequence[Candidate]) -> tuple[float, ...]:
        """One score for each candidate, higher is better."""
        data = {"candidates": [candidate.to_json() for candidate in candidates]}
        return await self._ask(Hook.RANK, view, data, lambda answer: contract.scores(answer, len(candidates)))

    async def accept(self, view: SearchView, trial: TrialRecord) -> bool | None:
        """Whether the search should continue from ``trial``; None abstains."""
        return await self._ask(Hook.ACCEPT, view, {"trial": trial.to_json()}, contract.acceptance)

    async def budget(self, view: SearchView, candidate: Candidate) -> float:
        """The fraction of the full budget to spend on ``candidate``."""
        data = {"candidate": candidate.to_json()}
        return await self._ask(Hook.BUDGET, view, data, lambda answer: contract.fraction(answer, self._limits))

    async def close(self) -> None:
        """Kill the worker and reap it. Safe to call again."""
        await self._channel.close()

    async def _install(
        self, source: str, objective: Objective, settings: Mapping[str, Any], seed: int, *, language_only: bool
    ) -> dict[str, Any]:
        request = {
            "op": "install",
            "source": source,
            "space": self._space.to_json(),
            "objective": {"metric": objective.metric, "direction": objective.direction.value},
            "settings": dict(settings),
            "seed": seed,
            "language_only": language_only,
        }
        answer = await self._exchange(Hook.INIT, request, self._limits.install_seconds)
        if findings := refusals(answer):
            raise MechanismRejected(findings)
        return self._opened(Hook.INIT, answer)  # type: ignore[no-any-return]

    def _describe(self, described: Any) -> None:
        try:
            self.title, self.summary = one_line(str(described["name"]), 48), one_line(str(described["summary"]), 200)
            self.hooks = frozenset(Hook(hook) for hook in described["hooks"])
        except (KeyError, TypeError, ValueError):
            raise MechanismFailure(Hook.INIT, FailureKind.PROTOCOL, "the worker described no mechanism") from None

    async def _ask(self, hook: Hook, view: SearchView, data: dict[str, Any], judge: Callable[[Any], T]) -> T:
        if hook not in self.hooks:
            raise ValueError(f"mechanism {self.name} does not implement {hook.value}")
        self._check_view(view)
        return await self._call(hook, {"op": "call", "view": view.to_json(), **data}, judge)

    async def _call(self, hook: Hook, request: dict[str, Any], judge: Callable[[Any], T]) -> T:
        answer = await self._exchange(hook, {"hook": hook.value, **request}, self._limits.call_seconds)
        if "failed" in answer or "answer" not in answer:
            await self.close()
        value = self._opened(hook, answer)
        try:
            judged = judge(value)
        except contract.Breach as breach:
            await self.close()
            raise MechanismFailure(hook, breach.kind, str(breach)) from None
        self._hash.update(json.dumps([hook.value, value], sort_keys=True).encode())
        return judged

    async def _exchange(self, hook: Hook, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        started = time.monotonic()
        try:
            answer = await self._channel.ask(request, seconds)
        except ChannelFailure as failure:
            raise MechanismFailure(hook, failure.kind, str(failure)) from None
        finally:
            self.seconds += time.monotonic() - started
        allowed = self._limits.budget_seconds + self._limits.budget_seconds_per_trial * len(self._observed)
        if self.seconds > allowed:
            await self.close()
            message = (
                f"its calls took {self.seconds:.1f} s; {allowed:.1f} s are allowed after {len(self._observed)} trials"
            )
            raise MechanismFailure(hook, FailureKind.BUDGET_EXHAUSTED, message)
        return answer

    @staticmethod
    def _opened(hook: Hook, answer: dict[str, Any]) -> Any:
        try:
            return opened(answer)
        except WorkerFailure as failure:
            raise MechanismFailure(hook, failure.kind, failure.message, failure.line) from None

    def _check_view(self, view: SearchView) -> None:
        # A view may be older than the newest observation (trials run side by side), never newer: an answer about what
        # was not observed could not be reproduced by replaying the observations.
        if len(view.history) > len(self._observed):
            message = f"{self.name} observed {len(self._observed)} trials, the view shows {len(view.history)}"
            raise ValueError(f"{message}: observe every decided trial once before the next view")
        for trial in (view.incumbent, view.best):
            if trial.number not in self._known:
                raise ValueError(f"{self.name} never observed trial {trial.number}, which the view refers to")

    def _check_vetoes(self, vetoed: bool) -> None:
        self._vetoes.append(vetoed)
        if len(self._vetoes) == self._limits.veto_window:
            rate = sum(self._vetoes) / self._limits.veto_window
            if rate > self._limits.veto_rate:
                message = f"vetoed {rate:.0%} of the last {self._limits.veto_window} candidates; that stops the search"
                raise contract.Breach(FailureKind.OBSTRUCTED, message)

    def _check_repetition(self, view: SearchView, made: tuple[Candidate, ...]) -> None:
        for candidate in made:
            tried = _key({**view.incumbent.configuration, **candidate.changes}) in self._tried
            self._repeated = self._repeated + 1 if tried else 0
        if self._repeated >= self._limits.repeated_proposals:
            message = f"its last {self._repeated} proposals were configurations that had been tried already"
            raise contract.Breach(FailureKind.OBSTRUCTED, message)


def _key(configuration: Configuration) -> str:
    return json.dumps(configuration_to_json(configuration), sort_keys=True)
