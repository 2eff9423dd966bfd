"""Guard rails of level 1.5: they hold whatever the model answers, and every refusal is listed."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mechanisms.interface import Origin, TrialRecord
from outer_service.events import FreezeReason
from outer_service.guard import (
    GUIDANCE_CHARACTERS,
    LEAST_ACTIVE,
    LEAST_TRIES,
    MOST_FREEZES,
    STRATEGY_CHARACTERS,
    guarded,
    tries_of,
)
from outer_service.observed import ObservedRun, ObservedTask, RunState, SearchConfig
from service_kit.parameters import Kind, Objective, Outcome, Parameter, ParameterSpace

NAMES = tuple(f"p{i}" for i in range(10))
SPACE = ParameterSpace(
    (
        *(Parameter(name, Kind.REAL, 0.0, minimum=0.0, maximum=1.0) for name in NAMES),
        Parameter("fixed", Kind.REAL, 0.0, locked=True),
    )
)


def a_run(frozen: tuple[str, ...] = ()) -> ObservedRun:
    task = ObservedTask("t", "", "", SPACE, Objective("loss"), 1.0, "", "")
    config = SearchConfig(frozen=frozen)
    return ObservedRun("runs/r", "t", RunState.PAUSED, "", 30, 5, 10, task, config, 0, 0, 1.0, 9)


def trial(number: int, *names: str, kept: bool | None = False) -> TrialRecord:
    changes = dict.fromkeys(names, 0.5)
    return TrialRecord(
        number, SPACE.defaults() | changes, changes, "", Origin.MODEL, "", Outcome.SUCCEEDED, 1.0, kept, 1.0
    )


def freeze(*names: str) -> list[FreezeReason]:
    return [FreezeReason(name, "worn out") for name in names]


def failed_often(*names: str) -> list[TrialRecord]:
    return [trial(1 + i * len(names) + j, name) for i in range(LEAST_TRIES) for j, name in enumerate(names)]


def test_a_parameter_that_failed_three_times_is_frozen() -> None:
    left = guarded(a_run(), failed_often("p0"), freeze("p0"), [], "refine", "look elsewhere")
    assert left.freeze == (FreezeReason("p0", "worn out"),)
    assert (left.strategy, left.guidance, left.refused) == ("refine", "look elsewhere", ())


def test_too_few_tries_and_gains_are_refused_with_their_numbers() -> None:
    history = [*failed_often("p0")[:2], *failed_often("p1"), trial(20, "p1", kept=True)]
    left = guarded(a_run(), history, freeze("p0", "p1"), [], "", "")
    assert left.freeze == ()
    assert "freeze p0: tried 2 times; at least 3" in left.refused[0]
    assert "freeze p1: 1 of 4 trials with it were kept" in left.refused[1]


def test_refused_trials_are_no_tries() -> None:
    assert tries_of([trial(1, "p0", kept=None)]) == {}


def test_unknown_and_locked_parameters_are_refused() -> None:
    left = guarded(a_run(), [], freeze("p99", "fixed"), [FreezeReason("nonsense", "")], "", "")
    assert [text.split(":")[0] for text in left.refused] == ["unfreeze nonsense", "freeze p99", "freeze fixed"]


def test_at_most_five_new_freezes_a_cycle() -> None:
    left = guarded(a_run(), failed_often(*NAMES), freeze(*NAMES), [], "", "")
    assert len(left.freeze) == MOST_FREEZES
    assert len(left.refused) == len(NAMES) - MOST_FREEZES


def test_four_parameters_stay_active() -> None:
    run = a_run(frozen=NAMES[: len(NAMES) - LEAST_ACTIVE - 1])
    left = guarded(run, failed_often(*NAMES), freeze(*NAMES[-3:]), [], "", "")
    assert len(left.freeze) == 1
    assert all("at least 4 parameters stay active" in text for text in left.refused)


def test_a_parameter_is_not_frozen_and_unfrozen_at_once() -> None:
    left = guarded(a_run(("p0",)), failed_often("p0"), freeze("p0"), freeze("p0"), "", "")
    assert (left.freeze, [entry.parameter for entry in left.unfreeze]) == ((), ["p0"])


def test_long_texts_are_cut_and_that_is_said() -> None:
    left = guarded(a_run(), [], [], [], "s" * 999, "g" * 9999)
    assert (len(left.strategy), len(left.guidance)) == (STRATEGY_CHARACTERS, GUIDANCE_CHARACTERS)
    assert [text.split(":")[0] for text in left.refused] == ["strategy", "guidance"]


names = st.sampled_from([*NAMES, "fixed", "unknown"])


@settings(max_examples=150, deadline=None)
@given(
    frozen=st.sets(st.sampled_from(NAMES), max_size=8),
    wanted=st.lists(names, max_size=14),
    thawed=st.lists(names, max_size=6),
    history=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([True, False, None])), max_size=40),
)
def test_the_rails_hold_for_every_answer(
    frozen: set[str], wanted: list[str], thawed: list[str], history: list[tuple[str, Any]]
) -> None:
    trials = [trial(i, name, kept=kept) for i, (name, kept) in enumerate(history, 1)]
    run = a_run(tuple(sorted(frozen)))
    left = guarded(run, trials, freeze(*wanted), freeze(*thawed), "s", "g")
    new = [entry.parameter for entry in left.freeze]
    after = (frozen - {entry.parameter for entry in left.unfreeze}) | set(new)
    tries = tries_of(trials)
    assert len(new) == len(set(new)) <= MOST_FREEZES
    assert all(tries[name].count >= LEAST_TRIES and not tries[name].kept for name in new)
    assert not after - set(NAMES)
    assert not new or len(NAMES) - len(after) >= LEAST_ACTIVE
    assert len(new) + len([t for t in left.refused if t.startswith("freeze ")]) == len(wanted)
