"""Carries out level 1.5: measure what the last revision did, ask the analyst, apply what the guard rails leave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from outer_service import events, revisions
from outer_service.analyst import Advice, analyse
from outer_service.campaign import Campaign
from outer_service.guard import Guarded
from outer_service.inner_client import InnerClient
from outer_service.observed import Observation, ObservedRun, SearchConfig
from outer_service.store import Store
from outer_service.turns import BudgetSpent, budget_of, failed
from service_kit.errors import RemoteError
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import Failure, ModelError

Remark = Callable[[str], Awaitable[None]]


class Reconfiguration:
    """Level 1.5 of one campaign."""

    def __init__(self, store: Store, inner: InnerClient, model: LanguageModel, remark: Remark) -> None:
        self._store = store
        self._inner = inner
        self._model = model
        self._remark = remark

    async def measure(self, campaign: Campaign, observation: Observation) -> None:
        """Record what happened under each revision of the search configuration so far."""
        measured = revisions.measured(observation)
        if measured.revisions:
            await self._happens(campaign, measured)
        if measured.revisions and observation.run.state.steerable:
            said = revisions.said(measured.revisions[-1], observation.run.task.objective.unit)
            await self._remark(f"level 1.5: {said}")

    async def configure(self, campaign: Campaign, observation: Observation) -> None:
        """One analysis; the answer is kept whatever comes after it.

        Raises :class:`ModelError`, :class:`BudgetSpent` and :class:`RemoteError`.
        """
        if campaign.budget_spent:
            raise BudgetSpent(campaign.budget_spent)
        await self._remark(f"level 1.5: reads the trace after {observation.run.decided_trials} trials")
        every = campaign.policy.configuration_every
        try:
            advice = await analyse(self._model, observation, every, budget_of(campaign))
        except ModelError as error:
            await self._happens(campaign, events.AnalysisFinished(failed(error, self._model)))
            if error.kind is Failure.BUDGET_SPENT:
                raise BudgetSpent(error.message) from None
            raise
        left, run, revision = advice.guarded, observation.run, 0
        changes = bool(left.freeze or left.unfreeze) or _differs(run, left.strategy, left.guidance)
        finished = events.AnalysisFinished(
            advice.turn,
            advice.observation,
            left.freeze,
            left.unfreeze,
            left.strategy,
            left.guidance,
            left.refused,
            applied=False,
        )
        if changes:
            try:
                revision = await self._apply(campaign, advice, run)
            except RemoteError:
                await self._happens(campaign, finished)  # the answer is kept, though it came to nothing
                raise
        await self._happens(campaign, replace(finished, applied=changes, revision=revision))
        frozen = ", ".join(entry.parameter for entry in left.freeze) or "nothing"
        await self._remark(f"level 1.5: froze {frozen}; strategy: {left.strategy or run.config.strategy}")

    async def _apply(self, campaign: Campaign, advice: Advice, run: ObservedRun) -> int:
        """Change the control surface once, also when the answer to that was lost; returns its new revision."""
        left, config = advice.guarded, run.config

        async def apply() -> int:
            now = (await self._inner.run(campaign.run)).config
            if now.revision == config.revision + 1 and _is_result_of(now, config, left):
                return now.revision
            changed = await self._inner.update_config(
                campaign.run,
                freeze=left.freeze,
                unfreeze=left.unfreeze,
                strategy=left.strategy or None,
                guidance=left.guidance or None,
                author=f"level 1.5 ({advice.turn.model})",
                expected_revision=config.revision,
            )
            return changed.revision

        return await self._inner.patiently(apply)

    async def _happens(self, campaign: Campaign, *happening: events.Event) -> None:
        await self._store.commit(campaign.id, lambda _: happening)


def _differs(run: ObservedRun, strategy: str, guidance: str) -> bool:
    """Whether a text is to be changed; an empty one leaves what there is."""
    return bool((strategy and strategy != run.config.strategy) or (guidance and guidance != run.config.guidance))


def _is_result_of(now: SearchConfig, before: SearchConfig, advice: Guarded) -> bool:
    """Whether ``advice`` leads from one search configuration to the other."""
    frozen = (set(before.frozen) | {f.parameter for f in advice.freeze}) - {f.parameter for f in advice.unfreeze}
    strategy, guidance = advice.strategy or before.strategy, advice.guidance or before.guidance
    return (set(now.frozen), now.strategy, now.guidance) == (frozen, strategy, guidance)
