"""Carries out a research session, step by step: each answer and each verdict is stored before the next step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from outer_service import events, records
from outer_service.answers import NONE, Critique
from outer_service.campaign import Campaign, Offer, OpenSession, ResearchOutcome, Round
from outer_service.inner_client import InnerClient
from outer_service.library import author_of, standard_source
from outer_service.observed import Observation, ObservedMechanism, SearchDescription, SourceFile
from outer_service.recursion import Recursion
from outer_service.researcher import (
    Ask,
    End,
    Install,
    Judge,
    Reuse,
    chosen_offer,
    mechanism_id,
    messages,
    next_step,
    starting_point,
    summary,
)
from outer_service.store import Store
from outer_service.turns import BudgetSpent, answered, budget_of, failed
from service_kit.errors import RemoteError
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import Failure, ModelError
from service_kit.llm.prompts import ask_fitting

CONTROL_SOURCE = '''class Mechanism:
    """No-op control: observes every trial and never has an opinion."""

    def observe(self, trial):
        pass

    def veto(self, view, candidate):
        return None
'''
"""What the NOOP control installs: hooks that are called like any other's and change nothing."""

LANGUAGE = "python"
"""The language in which mechanisms are written."""

STANDARD = "standardMechanisms"
"""The collection of the mechanisms that ship with the system."""

MakeRoom = Callable[[], Awaitable[None]]
Remark = Callable[[str], Awaitable[None]]


class Session:
    """One research session of one campaign."""

    def __init__(
        self, store: Store, inner: InnerClient, model: LanguageModel, recursion: Recursion, remark: Remark
    ) -> None:
        self._store = store
        self._inner = inner
        self._model = model
        self._recursion = recursion
        self._remark = remark

    async def research(
        self, campaign: Campaign, observation: Observation, make_room: MakeRoom
    ) -> events.ResearchFinished:
        """The dialogue from where it is to its end.

        Raises :class:`ModelError` and :class:`BudgetSpent` after the session was ended, :class:`RemoteError` before.
        """
        description = await self._inner.describe(campaign.run)
        while True:
            session = campaign.session
            assert session is not None
            match next_step(session, campaign.policy.repairs):
                case Ask() as step:
                    campaign = await self._ask(campaign, session, step, observation, description)
                case Judge(source):
                    campaign = await self._judge(campaign, session, source)
                case Reuse(offer):
                    await self._remark(f"level 2: tries {offer.choice} again. {offer.record}")
                    campaign = await self._judge(campaign, session, await self._source(offer))
                case Install(wanted, source):
                    author = await self._author(campaign, session, source)
                    return await self._install(campaign, session, wanted, source, author, make_room)
                case End(outcome, message):
                    return await self._finish(campaign, events.ResearchFinished(session.name, outcome, message))

    async def unsupported(self, campaign: Campaign) -> events.ResearchFinished | None:
        """The end of a session whose inner service runs no Python, before it has cost anything; None where it does."""
        session = campaign.session
        assert session is not None
        description = await self._inner.describe(campaign.run)
        if LANGUAGE in description.languages:
            return None
        runs = ", ".join(description.languages) or "none"
        message = (
            f"the inner service ({description.implementation or 'it does not say which'}) does not run mechanisms in "
            f"{LANGUAGE}; languages that it runs: {runs}. Level 1.5 goes on"
        )
        return await self._finish(
            campaign, events.ResearchFinished(session.name, ResearchOutcome.NOT_SUPPORTED, message)
        )

    async def control(
        self, campaign: Campaign, observation: Observation, make_room: MakeRoom
    ) -> events.ResearchFinished:
        """In place of research: install a mechanism that does nothing."""
        session = campaign.session
        assert session is not None
        return await self._install(
            campaign, session, "noop-control", CONTROL_SOURCE, "control", make_room, control=True
        )

    async def restart(self, campaign: Campaign, observation: Observation) -> events.ResearchFinished:
        """In place of research: let the proposer begin again, without the history, from the incumbent."""
        session, run = campaign.session, observation.run
        assert session is not None
        config = run.config
        newest = max((trial.number for trial in observation.trials), default=0)
        if config.visible_from_trial <= newest:  # else an interruption came between the two
            config = await self._inner.update_config(
                campaign.run, author="restart control", expected_revision=config.revision, clear_history=True
            )
        cleared = events.HistoryCleared(session.name, config.visible_from_trial, config.revision)
        message = f"control: the proposer's history begins with trial {config.visible_from_trial}, the incumbent again"
        finished = events.ResearchFinished(session.name, ResearchOutcome.RESTARTED, message)
        await self._happens(campaign, cleared, finished)
        return finished

    async def _judge(self, campaign: Campaign, session: OpenSession, source: str) -> Campaign:
        """Show a source to the gate."""
        attempt = len(session.judgements) + 1
        await self._remark(f"level 2: the gate judges attempt {attempt}")
        report = await self._inner.check(campaign.run, source)
        return await self._happens(campaign, events.MechanismJudged(session.name, attempt, report, source))

    async def _source(self, offer: Offer) -> str:
        collection, _, id_ = offer.entry.partition("/")
        return standard_source(offer.entry) if collection == STANDARD else (await self._store.library_entry(id_)).source

    async def _author(self, campaign: Campaign, session: OpenSession, source: str) -> str:
        """Who wrote ``source``: for what came from the library unchanged, its own author."""
        offer = chosen_offer(session)
        if offer is None or source != await self._source(offer):
            return author_of(campaign.model, scripted=campaign.scripted)
        return "standard" if offer.standard else (await self._store.library_entry(offer.entry.partition("/")[2])).author

    async def _ask(
        self,
        campaign: Campaign,
        session: OpenSession,
        step: Ask,
        observation: Observation,
        description: SearchDescription,
    ) -> Campaign:
        """One round. A failed one ends the session."""
        if campaign.budget_spent:
            ended = events.ResearchFinished(session.name, ResearchOutcome.STOPPED, f"stopped: {campaign.budget_spent}")
            await self._finish(campaign, ended)
            raise BudgetSpent(campaign.budget_spent)
        round_ = step.round
        again = f", attempt {len(session.judgements) + 1}" if round_ is Round.REPAIR else ""
        await self._remark(f"level 2: {round_.value}{again}")
        origin = starting_point(session)
        start = SourceFile(origin.choice, await self._source(origin)) if origin is not None else None
        repairs = campaign.policy.repairs
        try:
            answer = await ask_fitting(
                self._model,
                round_.value,
                lambda limit: messages(round_, session, observation, description, repairs, start, limit),
                step.answer_type,
                budget=budget_of(campaign),
            )
        except ModelError as error:
            spent = error.kind is Failure.BUDGET_SPENT
            said = (
                f"stopped before {round_.value}: {error.message}"
                if spent
                else f"{round_.value} failed: {error.message}"
            )
            outcome = ResearchOutcome.STOPPED if spent else ResearchOutcome.MODEL_FAILED
            await self._happens(
                campaign,
                events.RoundFinished(session.name, round_, failed(error, self._model), said),
                events.ResearchFinished(session.name, outcome, said),
            )
            if spent:
                raise BudgetSpent(error.message) from None
            raise
        value = answer.value
        if isinstance(value, Critique):
            value = await self._scored(campaign, session, value)
        said = summary(round_, value)
        happening: list[events.Event] = [
            events.RoundFinished(session.name, round_, answered(answer), said, value.model_dump_json())
        ]
        if isinstance(value, Critique) and (offer := session.offer(value.choice)) is not None:
            happening.append(events.LibraryEntryChosen(session.name, offer, value.reason))
        return await self._happens(campaign, *happening)

    async def _scored(self, campaign: Campaign, session: OpenSession, critique: Critique) -> Critique:
        """The critique with the choice that the research procedure makes of it."""
        if critique.choice == NONE or not campaign.procedure:
            return critique
        among = records.candidates(session, critique)
        chosen = await self._recursion.choice(campaign, session.record, among, critique.choice)
        if chosen == critique.choice:
            return critique
        reason = f"the research procedure scores it higher than {critique.choice}, which the critique chose"
        return critique.model_copy(update={"choice": chosen, "reason": reason})

    async def _install(
        self,
        campaign: Campaign,
        session: OpenSession,
        wanted: str,
        source: str,
        author: str,
        make_room: MakeRoom,
        *,
        control: bool = False,
    ) -> events.ResearchFinished:
        """Install an accepted source, or find it installed by this session before an interruption."""
        present = await self._inner.mechanisms(campaign.run)
        mechanism = _installed_before(present, session, source, campaign)
        if mechanism is None:
            await make_room()
            id_ = mechanism_id(wanted, {other.id for other in present})
            try:
                mechanism, _ = await self._inner.install(campaign.run, id_, source, author=author, allow_inert=control)
            except RemoteError as error:
                if error.code != "FAILED_PRECONDITION" or error.reason == "WRONG_STATE":
                    raise
                # The run went on between the two verdicts, and the second one counts.
                refused = events.ResearchFinished(session.name, ResearchOutcome.REJECTED, error.message)
                return await self._finish(campaign, refused)
        decided = (await self._inner.run(campaign.run)).decided_trials
        origin = starting_point(session)
        message = f"{mechanism.summary or mechanism.id} Hooks: {', '.join(hook.value for hook in mechanism.hooks)}."
        return await self._finish(
            campaign,
            events.ResearchFinished(
                session.name,
                ResearchOutcome.INSTALLED,
                f"control: {message}" if control else message,
                mechanism.id,
                mechanism.source_sha256,
                decided,
                control,
                origin.entry if origin is not None else "",
            ),
        )

    async def _finish(self, campaign: Campaign, finished: events.ResearchFinished) -> events.ResearchFinished:
        await self._happens(campaign, finished)
        return finished

    async def _happens(self, campaign: Campaign, *happening: events.Event) -> Campaign:
        return await self._store.commit(campaign.id, lambda _: happening)


def _installed_before(
    present: tuple[ObservedMechanism, ...], session: OpenSession, source: str, campaign: Campaign
) -> ObservedMechanism | None:
    known = {mechanism.id for mechanism in campaign.mechanisms}
    for mechanism in present:
        fresh = mechanism.id not in known and mechanism.installed_after_trial >= session.after_trial
        if fresh and mechanism.source == source:
            return mechanism
    return None
