"""Installing mechanisms: the gate's verdict, a process of their own, and their state by replay."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from inner_service.mechanism import GateFinding, GateReport, HookEffect, Mechanism, MechanismState
from inner_service.mechanism_set import MechanismSet, Member, suspension
from inner_service.run import OVER, Search
from inner_service.store import Store
from inner_service.trace import Event, MechanismInstalled, MechanismRejected, MechanismReplayed, MechanismUninstalled
from mechanisms import gate
from mechanisms.findings import Finding, Stage
from mechanisms.interface import Hook
from mechanisms.report import GateReport as Judgement
from mechanisms.report import Verdict
from mechanisms.sandbox.host import FailureKind, MechanismFailure, MechanismProcess, SandboxPolicy, SandboxUnavailable
from mechanisms.sandbox.host import MechanismRejected as SourceRejected
from service_kit.errors import AlreadyExists, InvalidArgument, NotFound, ServiceError, StorageFailed, WrongState
from service_kit.leases import LeaseLost
from service_kit.parameters import Value

_ID = re.compile(r"[a-z][a-z0-9-]{0,47}")


class Refused(ServiceError):
    """The gate refused a mechanism; ``report`` says why and is on the trace."""

    def __init__(self, mechanism_id: str, report: GateReport) -> None:
        self.report = report
        first = report.findings[0].message if report.findings else "see the report"
        text = f"the gate rejected mechanism {mechanism_id!r} at its {report.stage.value} stage: {first}"
        super().__init__(text, hint="The details of this status hold the complete report.")


class Installer:
    """Installs and removes the mechanisms of one run."""

    def __init__(self, run_id: str, store: Store, mechanisms: MechanismSet, sandbox: SandboxPolicy) -> None:
        self._run_id = run_id
        self._store = store
        self._mechanisms = mechanisms
        self._sandbox = sandbox

    async def check(self, source: str, settings: Mapping[str, Value], allow_inert: bool) -> GateReport:
        """The gate's verdict against the run's space and its recorded decisions."""
        search = await self._store.search(self._run_id)
        return _report(await self._judge(search, source, settings, allow_inert, search.run.spec.seed))

    async def install(
        self, mechanism_id: str, source: str, settings: Mapping[str, Value], *, allow_inert: bool, author: str
    ) -> Mechanism:
        """Check, start, replay, and let it act from the next trial on.

        Raises :class:`InvalidArgument`, :class:`AlreadyExists`, :class:`WrongState` and :class:`Refused`.
        """
        search = await self._store.search(self._run_id)
        _check_free(search, mechanism_id)
        seed = _seed(search.run.spec.seed, mechanism_id)
        verdict = await self._judge(search, source, settings, allow_inert, seed)
        if not verdict.accepted:
            raise await self._refuse(mechanism_id, source, verdict)
        try:
            member = await self._start(search, mechanism_id, source, settings)
            replayed = await self._rebuilt(member, len(search.decided()), verdict.recorded_hash)
            await self._replay(member)
        except (MechanismFailure, SourceRejected) as failure:
            finding = Finding(Stage.REPLAY, getattr(failure, "line", None), str(failure), "")
            rejected = replace(verdict, verdict=Verdict.REJECTED, stage=Stage.REPLAY, findings=(finding,))
            raise await self._refuse(mechanism_id, source, rejected) from None

        def installed(search: Search) -> list[Event]:
            _check_free(search, mechanism_id)
            mechanism = Mechanism(
                name=mechanism_id,
                summary=verdict.summary,
                source=source,
                source_sha256=verdict.source_sha256,
                hooks=tuple(hook for hook in Hook if hook in member.process.hooks),
                settings=dict(settings),
                report=_report(verdict),
                author=author,
                sandbox_layers=member.process.layers,
                installed_after_trial=len(search.trials) - 1,
                observed=member.observed,
                state_hash=member.process.state_hash,
            )
            return [MechanismInstalled(mechanism), *replayed]

        async with self._mechanisms.changing:
            try:
                commit = await self._store.commit(self._run_id, installed)
            except BaseException:
                await member.process.close()
                raise
            mechanism = _found(commit.search, mechanism_id)
            member.since = mechanism.installed_after_trial + 1
            self._mechanisms.join(member)
        return mechanism

    async def uninstall(self, name: str, reason: str) -> Mechanism:
        """Raises :class:`NotFound` and :class:`WrongState`."""

        def uninstalled(search: Search) -> list[Event]:
            mechanism = _found(search, name)
            if mechanism.state is MechanismState.UNINSTALLED:
                full = f"{search.run.name}/mechanisms/{name}"
                raise WrongState("mechanism", full, "uninstalled", "uninstall", ("active", "suspended"))
            return [MechanismUninstalled(name, reason, mechanism.effect)]

        async with self._mechanisms.changing:
            await self._mechanisms.leave(name)
            commit = await self._store.commit(self._run_id, uninstalled)
        return _found(commit.search, name)

    async def restore(self) -> None:
        """Start the active mechanisms that do not run here, after a restart or because another service installed them,
        and part with those that are no longer active; state comes back by replay."""
        async with self._mechanisms.changing:
            search = await self._store.search(self._run_id)
            active = [m for m in search.mechanisms if m.state is MechanismState.ACTIVE]
            for name in set(self._mechanisms.names) - {mechanism.name for mechanism in active}:
                await self._mechanisms.leave(name)
            for mechanism in active:
                if mechanism.name in self._mechanisms.names or search.run.state.terminal:
                    continue
                try:
                    self._mechanisms.join(await self._revive(search, mechanism))
                except (LeaseLost, StorageFailed):
                    raise
                except (MechanismFailure, SourceRejected, ServiceError) as error:
                    await self._give_up(mechanism.name, error)

    async def _revive(self, search: Search, mechanism: Mechanism) -> Member:
        """The mechanism in a new process with the state that it had. Raises MechanismFailure when that is another."""
        member = await self._start(search, mechanism.name, mechanism.source, mechanism.settings)
        replayed = await self._rebuilt(member, mechanism.observed, mechanism.state_hash)
        await self._store.commit(self._run_id, lambda _: replayed)
        if not all(event.matches for event in replayed):
            await member.process.close()
            text = f"the replay of {member.observed} trials led to another state than before"
            raise MechanismFailure(Hook.OBSERVE, FailureKind.PROTOCOL, text)
        await self._replay(member)
        member.since = mechanism.installed_after_trial + 1
        return member

    async def _rebuilt(self, member: Member, observed: int, state_hash: str) -> list[MechanismReplayed]:
        """Rebuild the state after the first ``observed`` decided trials and say whether it is the one that had
        ``state_hash``; nothing is said where nothing was observed."""
        if not observed:
            return []
        await self._replay(member, observed)
        return [MechanismReplayed(member.name, observed, member.process.state_hash == state_hash)]

    async def _give_up(self, name: str, error: Exception) -> None:
        failure = error if isinstance(error, MechanismFailure) else _cannot_start(error)
        await self._store.commit(self._run_id, lambda search: suspension(search, name, failure))

    async def _judge(
        self, search: Search, source: str, settings: Mapping[str, Value], allow_inert: bool, seed: int
    ) -> Judgement:
        task = search.run.task
        try:
            return await gate.check(
                source,
                space=task.space,
                objective=task.objective,
                history=search.decided(),
                settings=settings,
                seed=seed,
                synthetic_seed=search.run.spec.seed,
                allow_inert=allow_inert,
                policy=self._sandbox,
            )
        except SandboxUnavailable as error:
            raise _unavailable(error) from None

    async def _start(self, search: Search, name: str, source: str, settings: Mapping[str, Value]) -> Member:
        """A running mechanism that has observed nothing yet."""
        task = search.run.task
        try:
            process = await MechanismProcess.start(
                source,
                task.space,
                task.objective,
                settings,
                _seed(search.run.spec.seed, name),
                name=name,
                policy=self._sandbox,
            )
        except SandboxUnavailable as error:
            raise _unavailable(error) from None
        return Member(name, process)

    async def _replay(self, member: Member, upto: int | None = None) -> None:
        """Show it the run's decided trials, all or the first ``upto``; a failure ends its process."""
        history = (await self._store.search(self._run_id)).decided()
        try:
            await member.catch_up(history[:upto])
        except BaseException:
            await member.process.close()
            raise

    async def _refuse(self, mechanism_id: str, source: str, verdict: Judgement) -> Refused:
        report = _report(verdict)
        await self._store.commit(self._run_id, lambda _: [MechanismRejected(mechanism_id, report, source)])
        return Refused(mechanism_id, report)


def _check_free(search: Search, mechanism_id: str) -> None:
    if not _ID.fullmatch(mechanism_id):
        description = f"must be 1 to 48 lowercase letters, digits and dashes, a letter first; got {mechanism_id!r}"
        raise InvalidArgument.of("mechanism_id", description)
    run = search.run
    if run.state.terminal:
        allowed = ("created", "running", "paused", "confirming")
        raise WrongState("run", run.name, run.state.value, "install a mechanism in", allowed, hint=OVER)
    if search.mechanism(mechanism_id) is not None:
        full = f"{run.name}/mechanisms/{mechanism_id}"
        raise AlreadyExists("mechanism", full, "Ids are never used again in a run; choose another one.")


def _found(search: Search, name: str) -> Mechanism:
    mechanism = search.mechanism(name)
    if mechanism is None:
        full = f"{search.run.name}/mechanisms/{name}"
        known = ", ".join(m.name for m in search.mechanisms) or "none"
        raise NotFound("mechanism", full, f"Mechanisms of this run: {known}.")
    return mechanism


def _unavailable(error: SandboxUnavailable) -> ServiceError:
    return ServiceError(str(error), hint="Start the inner service with --allow-weak-sandbox to run mechanisms anyway.")


def _cannot_start(error: Exception) -> MechanismFailure:
    return MechanismFailure(Hook.INIT, FailureKind.DIED, f"it could not be started again: {error}")


def _seed(seed: int, name: str) -> int:
    """A seed of its own for each mechanism of a run, the same after every restart."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:6])


def _report(report: Judgement) -> GateReport:
    """The gate's report in the form that the trace keeps."""
    statistics = report.statistics()
    return GateReport(
        verdict=report.verdict,
        stage=report.stage,
        findings=tuple(GateFinding(f.stage, f.line or 0, f.message, f.hint) for f in report.findings),
        hooks=tuple(hook for hook in Hook if hook in report.hooks),
        replayed_trials=report.recorded.trials,
        replay=tuple(
            HookEffect(hook, s.calls, s.changed, timedelta(seconds=s.seconds)) for hook, s in statistics.items()
        ),
        source_sha256=report.source_sha256,
        text=report.render(),
        summary=report.summary,
    )
