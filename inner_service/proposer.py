"""Proposing trials: the model's candidates and the mechanisms', typed, revised, vetoed, ranked.

The model is always asked, even where a mechanism's candidate will run: its choice is what would have happened without
the mechanism.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from inner_service import budgets, choice
from inner_service.candidates import (
    CitingCandidate,
    CitingProposal,
    Proposal,
    ProposedCandidate,
    configuration,
    sentence,
    storable,
    typed,
)
from inner_service.choice import Change, Option
from inner_service.conflicts import Conflicts
from inner_service.lessons.credit import comparison, credited
from inner_service.lessons.lesson import Lesson
from inner_service.lessons.relevance import most_relevant
from inner_service.lessons.writer import situation
from inner_service.mechanism_set import MechanismSet
from inner_service.obstruction import obstructor
from inner_service.round import Round
from inner_service.run import Search, Trial
from inner_service.search_state import TEMPLATES, Briefing, Refusal, described, proposer_prompt
from inner_service.store import Store
from inner_service.tasks import Task
from inner_service.trace import (
    Event,
    ModelCalled,
    ProposalFailed,
    TrialProposed,
    TrialRejected,
)
from mechanisms.interface import Candidate, Hook, Origin
from service_kit.errors import InvalidConfiguration, ServiceError
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import Failure, Message, ModelError
from service_kit.llm.prompts import ask_fitting
from service_kit.llm.structured import Answer

REASKS = 2
"""Times the model is asked again after its candidates were refused."""
CHOICE = 2
"""Candidates asked for beyond the wanted ones while a mechanism ranks, so that there is something to choose from."""
NEEDS_A_PERSON = frozenset(
    {
        Failure.UNREACHABLE,
        Failure.UNAUTHORIZED,
        Failure.UNKNOWN_MODEL,
        Failure.QUOTA_USED_UP,
        Failure.BAD_REQUEST,
        Failure.CONTEXT_TOO_LONG,
        Failure.NOT_RECORDED,
    }
)
"""Failures of the model that asking again does not mend."""


class NoCandidate(ServiceError):
    """The proposer could not produce a candidate; ``fatal`` when trying again is pointless before someone acts."""

    def __init__(self, message: str, *, hint: str = "", fatal: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.fatal = fatal


class Proposer:
    """Proposes the trials of one run."""

    def __init__(self, run_id: str, store: Store, task: Task, model: LanguageModel, mechanisms: MechanismSet) -> None:
        self._run_id = run_id
        self._store = store
        self._task = task
        self._model = model
        self._mechanisms = mechanisms
        self._conflicts = Conflicts()
        self._texts: dict[str, str] = {}
        """What mechanisms said in the newest prompt."""

    async def propose(self, count: int) -> list[Trial]:
        """Up to ``count`` new trials, PROPOSED, no two of them alike and none like one under way. Needs an incumbent.

        Raises :class:`NoCandidate`, after recording it, BudgetSpent, and :class:`Unavailable` when the task cannot be
        reached.
        """
        search = await self._store.search(self._run_id)
        view = search.view()
        self._texts = texts = await self._mechanisms.texts(view)
        round_ = Round(search, view, count, texts, await self.lessons(search))
        for _, candidates in await self._mechanisms.proposals(view, count):
            for candidate in candidates:
                await self._consider(round_, candidate, round_.own)
        await self._ask_model(round_)
        if round_.over_budget and not round_.model:
            raise budgets.BudgetSpent(search.run, round_.over_budget)
        if not round_.own and not round_.model:
            if (conflict := self._conflicts.left_nothing(round_.vetoers)) is not None:
                await self._mechanisms.resolve(conflict)
                return await self.propose(count)
            raise await self._failed(round_)
        self._conflicts.left_something()
        options = await self._choose(round_)
        compares = search.run.spec.compare_lessons and any(o.candidate.origin is Origin.MODEL for o in options)
        return await self._record(round_, options, await self._without_lessons(round_) if compares else None)

    async def from_client(self, changes: dict[str, object], hypothesis: str) -> list[Trial]:
        """The client's own candidate as a trial. Raises InvalidConfiguration; fields are parameter names."""
        search = await self._store.search(self._run_id)
        candidate = typed(search, changes, hypothesis, Origin.CLIENT)
        violations = await self._task.validate(configuration(search, candidate))
        if violations:
            raise InvalidConfiguration(violations)
        commit = await self._store.commit(self._run_id, lambda s: [TrialProposed(_trial(s, candidate, len(s.trials)))])
        return [commit.search.trials[-1]]

    async def preview(self) -> tuple[Message, ...]:
        """The prompt that would ask for a candidate now. Raises :class:`LimitTooSmall` where none would be sent.

        Mechanisms are not asked for it: reading must not change the search.
        """
        search = await self._store.search(self._run_id)
        briefing = Briefing(self._texts, await self.lessons(search), 1)
        return proposer_prompt(search, briefing, self._model.settings.context_tokens)

    async def lessons(self, search: Search) -> tuple[Lesson, ...]:
        """The few lessons of earlier runs that matter most now; none where the run is not to remember."""
        if not search.run.spec.use_lessons:
            return ()
        return most_relevant(await self._store.lessons.of_task(search.run.task.name), situation(search))

    async def _ask_model(self, round_: Round) -> None:
        """Fill ``round_.model``: ask, and ask again while places are empty and candidates were refused."""
        wanted = round_.count + (CHOICE if self._mechanisms.implementing(Hook.RANK) else 0)
        for _ in range(1 + REASKS):
            asked = wanted - len(round_.model)
            briefing = Briefing(round_.texts, round_.lessons, asked, tuple(round_.refused))
            answer = await self._call(round_, briefing)
            if answer is None:
                return
            for proposed in answer.value.candidates[:asked]:
                await self._take(round_, proposed)
            if len(round_.distinct([*round_.own, *round_.model])) >= round_.count:
                return

    async def _without_lessons(self, round_: Round) -> Candidate | None:
        """What the model wants first when no lesson is in view; None where that cannot be compared."""
        if not round_.lessons or round_.first_choice is None:
            return None
        asked = round_.count + (CHOICE if self._mechanisms.implementing(Hook.RANK) else 0)
        answer = await self._call(round_, Briefing(round_.texts, (), asked), needed=False)
        if answer is None:
            return None
        proposed = answer.value.candidates[0]
        try:
            return typed(
                round_.search, proposed.values(round_.search.run.task.space), proposed.hypothesis, Origin.MODEL
            )
        except InvalidConfiguration:
            return None

    async def _call(self, round_: Round, briefing: Briefing, *, needed: bool = True) -> Answer[Proposal] | None:
        """One recorded call of the model; None when it gave no usable answer, which only a ``needed`` one minds."""
        answer: Answer[Proposal]
        budget = budgets.model_budget((await self._store.search(self._run_id)).run)
        form = CitingProposal if briefing.lessons else Proposal
        try:
            answer = await ask_fitting(
                self._model,
                "propose",
                lambda limit: proposer_prompt(round_.search, briefing, limit),
                form,
                budget=budget,
            )
        except ModelError as error:
            refused = error.kind is Failure.BUDGET_SPENT
            if error.usage.calls or not refused:
                called = ModelCalled(
                    "propose",
                    self._model.name,
                    error.usage,
                    timedelta(seconds=error.latency),
                    error.messages,
                    error=str(error),
                    prompt_version=TEMPLATES.version,
                )
                await self._store.commit(self._run_id, lambda _: [called])
            if refused:
                round_.over_budget = error.message
            if refused or not needed:
                return None
            if error.kind in NEEDS_A_PERSON:
                round_.failure = str(error)
                raise await self._failed(round_, error) from None
            round_.failure = error.message
            return None
        called = ModelCalled(
            "propose",
            answer.model,
            answer.usage,
            timedelta(seconds=answer.latency),
            answer.messages[:-1],
            answer.text,
            scripted=answer.scripted,
            prompt_version=TEMPLATES.version,
        )
        await self._store.commit(self._run_id, lambda _: [called])
        return answer

    async def _take(self, round_: Round, proposed: ProposedCandidate) -> None:
        """Type one candidate of the model and consider it; what cannot be typed is recorded and shown to the model."""
        values = proposed.values(round_.search.run.task.space)
        try:
            candidate = typed(round_.search, values, proposed.hypothesis, Origin.MODEL)
        except InvalidConfiguration as error:
            refused = Candidate(storable(values), proposed.hypothesis, Origin.MODEL)
            await self._reject(round_, refused, sentence(error.violations))
            return
        round_.first_choice = round_.first_choice or candidate
        named = proposed.lessons if isinstance(proposed, CitingCandidate) else ()
        cited = tuple(lesson.id for lesson in round_.lessons if lesson.id in named)
        await self._consider(round_, candidate, round_.model, cited)

    async def _consider(
        self, round_: Round, candidate: Candidate, pool: list[Option], cited: tuple[str, ...] = ()
    ) -> None:
        """Revise a typed candidate, let it be vetoed and validated, and put it into ``pool`` if it may run."""
        text, changes = described(round_.search, candidate), list[Change]()
        for name, revised in await self._mechanisms.revise(round_.view, candidate):
            if dict(revised.changes) != dict(candidate.changes):
                before, text = text, described(round_.search, revised)
                changes.append(Change(name, Hook.REVISE, before, text))
            candidate = revised
        vetoed = await self._mechanisms.veto(round_.view, candidate)
        if candidate.origin is Origin.MECHANISM:
            conflict = self._conflicts.proposed(candidate.proposer, vetoed[0] if vetoed is not None else "")
            if conflict is not None and await self._mechanisms.resolve(conflict) == conflict.mechanisms[1]:
                vetoed = None  # by a mechanism that is gone
        if vetoed is not None:
            name, reason = vetoed
            changes.append(Change(name, Hook.VETO, f"run {text}", f"refuse it: {reason}"))
            await self._reject(round_, candidate, reason, name, changes)
            return
        values = configuration(round_.search, candidate)
        if round_.several and (twin := round_.twin(values, pool)):
            await self._reject(round_, candidate, f"is the same configuration as {twin}", changes=changes)
            return
        violations = await self._task.validate(values)
        if violations:
            await self._reject(round_, candidate, sentence(violations), changes=changes)
            return
        pool.append(Option(candidate, text, tuple(changes), cited=cited))

    async def _reject(
        self,
        round_: Round,
        candidate: Candidate,
        reason: str,
        mechanism: str = "",
        changes: Sequence[Change] = (),
    ) -> None:
        """Record a refused candidate as a REJECTED trial."""

        def rejected(search: Search) -> list[Event]:
            number = len(search.trials)
            events = [change.event(number) for change in changes]
            return [
                TrialProposed(_trial(round_.search, candidate, number)),
                *events,
                TrialRejected(number, reason, mechanism),
            ]

        await self._store.commit(self._run_id, rejected)
        self._count(changes)
        round_.vetoers.append(mechanism)
        if candidate.origin is Origin.MODEL:
            round_.refused.append(Refusal(dict(candidate.changes), reason))

    async def _choose(self, round_: Round) -> list[Option]:
        """The options that run, each with everything that mechanisms changed about it."""
        default = choice.in_turns([*round_.own, *round_.model], round_.search.run.decided_trials)
        answers = await self._mechanisms.rank(round_.view, [option.candidate for option in default])
        scores = dict(answers) if len(default) > 1 else {}
        if (conflict := self._conflicts.ranked(scores)) is not None:
            del scores[await self._mechanisms.resolve(conflict)]
        ordered = choice.ranked(default, scores)
        chosen = (round_.distinct(ordered) if round_.several else ordered)[: round_.count]
        wanted = round_.first_choice
        nothing = round_.failure or (round_.refused[-1].reason if round_.refused else "the model proposed nothing")
        instead_of = described(round_.search, wanted) if wanted is not None else f"nothing: {nothing}"
        by_rank = choice.ranking_changes(default, chosen, scores)
        finished = []
        for option, ranking in zip(chosen, by_rank, strict=True):
            changes = [*option.changes, *choice.proposing_change(option, instead_of, wanted), *ranking]
            fraction, shortened = await self._budget(round_, option)
            finished.append(replace(option, changes=(*changes, *shortened), fraction=fraction))
        return finished

    async def _budget(self, round_: Round, option: Option) -> tuple[float, list[Change]]:
        """The smallest fraction that a mechanism asks for."""
        answers = await self._mechanisms.budget(round_.view, option.candidate)
        fraction = min((wanted for _, wanted in answers), default=1.0)
        changed = [name for name, wanted in answers if wanted == fraction < 1.0]
        after = f"spend {fraction:.1%} of it"
        return fraction, [Change(name, Hook.BUDGET, "spend the full budget", after) for name in changed]

    async def _record(self, round_: Round, options: Sequence[Option], without_lessons: Candidate | None) -> list[Trial]:
        """Commit the chosen options as trials, the model's each with the lessons that it had in view."""

        def proposed(search: Search) -> list[Event]:
            events: list[Event] = []
            for number, option in enumerate(options, start=len(search.trials)):
                events.append(TrialProposed(_trial(round_.search, option.candidate, number, option.fraction)))
                events += [change.event(number) for change in option.changes]
                events += credited(round_.lessons, option, number)
            if without_lessons is not None and round_.first_choice is not None:
                number = next(
                    i for i, o in enumerate(options, len(search.trials)) if o.candidate.origin is Origin.MODEL
                )
                events.append(comparison(round_.search, number, without_lessons, round_.first_choice))
            return events

        commit = await self._store.commit(self._run_id, proposed)
        for option in options:
            self._count(option.changes)
        return list(commit.search.trials[-len(options) :])

    def _count(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._mechanisms.count_change(change.mechanism, change.hook)

    async def _failed(self, round_: Round, error: ModelError | None = None) -> NoCandidate:
        """Record that there is no candidate, and return the error that says so."""
        reason = round_.failure
        if not reason:
            last = round_.refused[-1].reason if round_.refused else "the model proposed nothing"
            reason = f"none of the model's candidates may run after {1 + REASKS} attempts; the last: {last}"
        commit = await self._store.commit(
            self._run_id, lambda search: [ProposalFailed(reason, search.run.failed_proposals + 1)]
        )
        blamed = obstructor(commit.search) if error is None else None
        if blamed is not None:
            await self._mechanisms.suspend(*blamed)
        hint = error.hint if error is not None else ""
        return NoCandidate(error.message if error is not None else reason, hint=hint, fatal=error is not None)


def _trial(search: Search, candidate: Candidate, number: int, fraction: float = 1.0) -> Trial:
    base = search.incumbent.configuration if search.incumbent is not None else search.start
    try:
        applied = search.run.task.space.apply(base, candidate.changes)
    except InvalidConfiguration:
        applied = dict(base)  # a refused candidate that stands for no configuration
    return Trial(
        number=number,
        configuration=applied,
        changes=dict(candidate.changes),
        hypothesis=candidate.hypothesis,
        origin=candidate.origin,
        proposer=candidate.proposer,
        budget_fraction=fraction,
        incumbent_metric=search.run.incumbent_metric,
        config_revision=search.run.search_config.revision,
        incumbent=search.run.incumbent,
    )
