"""Carries out recursion: the research procedure at work, and level 2's proposals to change it.

A procedure decides in place of the default: whether to research where level 2 is due, what to survey, how many
candidates, and which of them is built. One that fails is retired on the spot, loudly, and the default decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from mechanisms import procedure
from mechanisms.findings import Finding, Stage
from mechanisms.procedure import Moment, ProcedureHook, ProcedureReport
from mechanisms.sandbox.failures import SandboxUnavailable, SourceRejected
from mechanisms.sandbox.function import FunctionFailure
from mechanisms.sandbox.limits import SandboxPolicy
from outer_service import events, procedure_prompt, records
from outer_service.answers import ProcedureProposal
from outer_service.campaign import Campaign, CampaignState, Control, ProcedureAdvice, Verdict
from outer_service.comparison import Comparison
from outer_service.library import author_of
from outer_service.observed import GateFinding, GateReport, Observation
from outer_service.procedures import Adopted, Counted, ProcedureState, Ruled, ruling
from outer_service.store import Store
from outer_service.turns import answered, budget_of, failed
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import ModelError
from service_kit.llm.prompts import ask_fitting

log = structlog.get_logger("outer_service.recursion")


class Recursion:
    """The research procedures of one outer service."""

    def __init__(self, store: Store, model: LanguageModel, sandbox: SandboxPolicy) -> None:
        self._store = store
        self._model = model
        self._sandbox = sandbox

    async def looks(self, campaign: Campaign, record: Mapping[str, Any]) -> bool:
        """Whether to research now, where level 2 is due."""
        return await self._ask(campaign, ProcedureHook.LOOK, record) is not False

    async def advice(self, campaign: Campaign, record: Mapping[str, Any]) -> ProcedureAdvice | None:
        """What the procedure decides for a new session; None under the default."""
        if not campaign.procedure:
            return None
        fields = await self._ask(campaign, ProcedureHook.FIELDS, record)
        hypotheses = await self._ask(campaign, ProcedureHook.HYPOTHESES, record)
        return ProcedureAdvice(
            campaign.procedure,
            tuple(map(str, fields)) if isinstance(fields, tuple) else (),
            hypotheses if isinstance(hypotheses, int) else 0,
        )

    async def choice(
        self, campaign: Campaign, record: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]], choice: str
    ) -> str:
        """The candidate to build when the critique chose ``choice``."""
        asked = {**record, "candidates": [dict(candidate) for candidate in candidates]}
        scores = await self._ask(campaign, ProcedureHook.SCORE, asked)
        if not isinstance(scores, tuple):
            return choice
        return procedure.best([float(score) for score in scores], candidates, choice)

    async def at_the_end(self, campaign: Campaign, observation: Observation) -> None:
        """Count the campaign, rule where a probation is over, and let level 2 propose a change."""
        happened = [entry.event async for entry in self._store.entries(campaign.id)]
        if campaign.policy.control is Control.NONE and campaign.sessions:
            await self._count(campaign, happened)
        if not campaign.policy.recursion or campaign.policy.control is not Control.NONE:
            return
        await self._rule(campaign)
        idle = campaign.state is not CampaignState.ACTIVE or campaign.budget_spent or not campaign.sessions
        if idle or (await self._store.procedures()).on_probation:
            return
        await self._propose(await self._store.campaign(campaign.id), observation)

    async def _ask(self, campaign: Campaign, hook: ProcedureHook, record: Mapping[str, Any]) -> procedure.Answer:
        """The procedure's answer; None, the default's, without one and from one that fails."""
        procedures = await self._store.procedures()
        # Another campaign may have retired it since this one began.
        if not campaign.procedure or campaign.procedure != procedures.current:
            return None
        try:
            return await procedure.ask(procedures.known[campaign.procedure].source, hook, record, self._sandbox)
        except (FunctionFailure, SourceRejected, SandboxUnavailable) as error:
            reason = f"it failed: {error}"
            log.warning("research procedure retired", procedure=campaign.procedure, reason=reason)
            await self._store.note_procedure(Ruled(campaign.procedure, ProcedureState.RETIRED, reason))
            await self._changed(campaign, campaign.procedure, ProcedureState.RETIRED, reason)
            return None

    async def _count(self, campaign: Campaign, happened: Sequence[events.Event]) -> None:
        ended = records.sessions(happened)
        kept = sum(session["verdict"] == Verdict.KEEP.value for session in ended)
        counted = Counted(campaign.name, campaign.procedure, len(ended), kept)
        if not (await self._store.procedures()).has(campaign.name):
            await self._store.note_procedure(counted)

    async def _rule(self, campaign: Campaign) -> None:
        ruled = ruling(await self._store.procedures(), campaign.policy.procedure_probation)
        if ruled is None:
            return
        event, comparison, campaigns = ruled
        await self._store.note_procedure(event)
        await self._changed(campaign, event.sha256, event.state, event.reason, comparison, campaigns)

    async def _propose(self, campaign: Campaign, observation: Observation) -> None:
        """Ask for a change, show it to the gate, repair it, adopt it. A failure of the model ends it, on the record."""
        moments = await procedure_prompt.recorded(self._store)
        report: ProcedureReport | None = None
        source = ""
        for attempt in range(1, campaign.policy.repairs + 2):
            shown = procedure_prompt.shown(await self._store.procedures(), moments, report, source)
            build = partial(procedure_prompt.request, observation, shown)
            try:
                answer = await ask_fitting(
                    self._model, procedure_prompt.PURPOSE, build, ProcedureProposal, budget=budget_of(campaign)
                )
            except ModelError as error:
                turn = failed(error, self._model)
                await self._happens(campaign, events.ProcedureJudged(turn, attempt, error.message))
                return
            value, turn = answer.value, answered(answer)
            if not value.change:
                await self._happens(campaign, events.ProcedureJudged(turn, attempt, value.reason))
                return
            source = value.code
            report = await self._judged(source, moments)
            judged = events.ProcedureJudged(turn, attempt, value.reason, source, _observed(report))
            campaign = await self._happens(campaign, judged)
            if report.accepted:
                author = author_of(turn.model, scripted=turn.scripted)
                adopted = Adopted(report.source_sha256, source, report.summary, author, campaign.name)
                await self._store.note_procedure(adopted)
                await self._changed(campaign, adopted.sha256, ProcedureState.PROBATION, value.reason)
                return

    async def _judged(self, source: str, moments: Sequence[Moment]) -> ProcedureReport:
        try:
            return await procedure.check(source, moments, self._sandbox)
        except SandboxUnavailable as error:
            finding = Finding(Stage.LANGUAGE, None, str(error))
            return ProcedureReport(False, finding.stage, (finding,), "")

    async def _changed(
        self,
        campaign: Campaign,
        sha256: str,
        state: ProcedureState,
        reason: str,
        comparison: Comparison | None = None,
        campaigns: int = 0,
    ) -> None:
        await self._happens(campaign, events.ProcedureChanged(sha256, state, reason, comparison, campaigns))

    async def _happens(self, campaign: Campaign, *happening: events.Event) -> Campaign:
        return await self._store.commit(campaign.id, lambda _: happening)


def _observed(report: ProcedureReport) -> GateReport:
    """The report in the form that campaigns keep."""
    return GateReport(
        accepted=report.accepted,
        stage=report.stage,
        findings=tuple(GateFinding(f.stage, f.line or 0, f.message, f.hint) for f in report.findings),
        replayed_trials=report.recorded,
        source_sha256=report.source_sha256,
        text=report.render(),
        summary=report.summary,
    )
