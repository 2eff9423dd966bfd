"""Counts that are kept up to date say what counting everything anew would say, in whatever order trials are decided."""

from collections import defaultdict
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from mechanisms.interface import Origin, TrialRecord
from mechanisms.tallies import Incumbents, Tally, Tallying, directions
from service_kit.parameters import Objective, Outcome

OBJECTIVE = Objective("loss")
METRICS = st.sampled_from([1.0, 2.0, 3.0])


@st.composite
def lives(draw: st.DrawFn) -> list[TrialRecord]:
    """Decided trials in the order of decision, which several at a time need not have in the order of proposal."""
    count = draw(st.integers(0, 12))
    trials = []
    for number in range(count):
        metric = draw(st.none() | METRICS)
        changes = draw(st.dictionaries(st.sampled_from("ab"), st.integers(0, 3)))
        configuration = {"a": 1, "b": 1, **changes}
        kept = metric is not None and draw(st.booleans())
        outcome = Outcome.CRASHED if metric is None else Outcome.SUCCEEDED
        bar = draw(st.none() | METRICS)
        trials.append(TrialRecord(number, configuration, changes, "h", Origin.MODEL, "", outcome, metric, kept, bar))
    return sorted(trials, key=lambda trial: trial.number + draw(st.integers(0, 3)))


def counted_anew(trials: Sequence[TrialRecord]) -> tuple[Tally, ...]:
    incumbents, found = Incumbents(trials), defaultdict(list)
    for trial in trials:
        for name, direction in directions(trial, incumbents).items():
            found[name, direction].append(trial)
    rows = []
    for (name, direction), members in found.items():
        gains = [t.incumbent_metric - t.metric for t in members if t.metric and t.incumbent_metric]
        kept, lost = sum(t.kept is True for t in members), sum(t.metric is None for t in members)
        rows.append(Tally(name, direction, len(members), kept, lost, max(gains, default=None)))
    return tuple(sorted(rows, key=lambda row: (-row.tries, row.parameter, row.direction)))


@settings(max_examples=40)
@given(lives(), lives(), st.lists(st.integers(0, 12), max_size=8))
def test_counts_are_those_of_the_whole_list_however_it_grew(
    one: list[TrialRecord], other: list[TrialRecord], lengths: list[int]
) -> None:
    tallying = Tallying(OBJECTIVE)
    for length in [*sorted(lengths), *lengths]:  # growing, then back and forth
        assert tallying.of(one[:length]) == counted_anew(one[:length])
    assert tallying.of(other) == counted_anew(other), "of another search"


def test_one_kept_late_may_turn_the_direction_of_one_that_was_counted_already() -> None:
    def trial(number: int, a: int, metric: float, kept: bool) -> TrialRecord:
        return TrialRecord(number, {"a": a}, {"a": a}, "", Origin.MODEL, "", Outcome.SUCCEEDED, metric, kept, 2.0)

    decided = [trial(0, 1, 2.0, True), trial(2, 2, 3.0, False), trial(1, 3, 2.0, True)]
    tallying = Tallying(OBJECTIVE)
    before = {(row.direction, row.tries) for row in tallying.of(decided[:2])}
    assert before == {("change", 1), ("increase", 1)}
    assert {(row.direction, row.tries) for row in tallying.of(decided)} == {
        ("change", 1),
        ("increase", 1),
        ("decrease", 1),
    }
    assert tallying.of(decided) == counted_anew(decided)


def test_a_list_that_goes_on_is_not_counted_again(monkeypatch) -> None:
    trials = [
        TrialRecord(n, {"a": n}, {"a": n}, "", Origin.MODEL, "", Outcome.SUCCEEDED, 9.0 - n, n % 2 == 0, 9.0)
        for n in range(40)
    ]
    tallying, counted = Tallying(OBJECTIVE), []
    count = tallying._count
    monkeypatch.setattr(tallying, "_count", lambda trial: (counted.append(trial.number), count(trial)))
    for length in (10, 10, 30, 40):
        tallying.of(trials[:length])
    assert counted == list(range(40))
