"""Which candidates run."""

import math

import pytest

from inner_service.choice import Option, in_turns, proposing_change, ranked, ranking_changes
from inner_service.seeds import fresh_seeds
from inner_service.student_t import t_quantile
from mechanisms.interface import Candidate, Origin


def option(x: float, proposer: str = "") -> Option:
    origin = Origin.MECHANISM if proposer else Origin.MODEL
    return Option(Candidate({"x": x}, "", origin, proposer), f"x = {x}")


def test_a_mechanism_goes_before_the_model_and_mechanisms_take_turns() -> None:
    pool = [option(1, "a"), option(2, "a"), option(3, "b"), option(9)]
    assert [o.candidate.changes["x"] for o in in_turns(pool, turn=0)] == [1, 3, 9, 2]
    assert [o.candidate.changes["x"] for o in in_turns(pool, turn=1)] == [3, 1, 9, 2]
    assert in_turns([option(9)], turn=5) == [option(9)]


def test_ranks_of_several_mechanisms_add_up_and_indifference_weighs_nothing() -> None:
    pool = [option(1), option(2), option(3)]
    assert ranked(pool, {"a": (0.0, 0.0, 0.0)}) == pool
    assert ranked(pool, {"a": (1, 2, 3), "b": (0, 0, 0)})[0] == option(3)
    assert ranked(pool, {"a": (1, 2, 3), "b": (30, 20, 10)}) == pool, "two opposite opinions cancel out"
    assert ranked(pool, {}) == pool


def test_a_ranking_change_belongs_to_those_who_wanted_it() -> None:
    pool = [option(1), option(2)]
    scores = {"for": (0.0, 1.0), "indifferent": (0.0, 0.0)}
    [[change]] = ranking_changes(pool, ranked(pool, scores)[:1], scores)
    assert (change.mechanism, change.before, change.after) == ("for", "x = 1", "x = 2")
    assert ranking_changes(pool, pool[:1], {}) == [[]]


def test_proposing_what_the_model_proposes_is_no_change() -> None:
    assert proposing_change(option(1, "a"), "the model's", Candidate({"x": 1}, "")) == []
    [change] = proposing_change(option(1, "a"), "the model's", Candidate({"x": 2}, ""))
    assert (change.mechanism, change.before) == ("a", "the model's")
    assert proposing_change(option(1), "", None) == []


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.706205), (2, 4.302653), (4, 2.776445), (9, 2.262157), (29, 2.045230), (199, 1.971957)],
)
def test_student_t_matches_the_tables(freedom: int, expected: float) -> None:
    assert math.isclose(t_quantile(0.975, freedom), expected, rel_tol=1e-6)


def test_fresh_seeds_differ_from_the_runs_and_from_each_other() -> None:
    seeds = fresh_seeds("confirmation", 7, 50)
    assert len({*seeds, 7}) == 51
    assert seeds == fresh_seeds("confirmation", 7, 50)
    assert seeds != fresh_seeds("confirmation", 8, 50)
