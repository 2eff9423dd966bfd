"""Research procedures: asked in the sandbox, judged as if hostile, replayed by the gate before anyone works by them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechanisms.findings import Stage
from mechanisms.procedure import SYNTHETIC, Moment, ProcedureHook, _judged, ask, best, check
from mechanisms.sandbox.failures import FailureKind
from mechanisms.sandbox.function import FunctionFailure
from mechanisms.sandbox.limits import SandboxPolicy

POLICY = SandboxPolicy()
PATIENT = '''def research(hook, record):
    """Patient: look only where nothing gains."""
    if hook == "look":
        return record["since_improvement"] >= 3
    if hook == "score":
        return [float(candidate["kept"]) for candidate in record["candidates"]]
'''
DEFAULT = "def research(hook, record):\n    return None\n"
SAME = "def research(hook, record):\n    return True if hook == 'look' else None\n"
CANDIDATES = ({"name": "new", "kept": 0}, {"name": "library:tabu", "kept": 2})


async def test_a_procedure_that_changes_decisions_passes_and_says_how_many() -> None:
    recorded = [Moment({"since_improvement": 9}, CANDIDATES, "new"), Moment({"since_improvement": 0})]
    report = await check(PATIENT, recorded, POLICY)
    assert report.accepted
    assert (report.recorded, report.summary) == (2, "Patient: look only where nothing gains.")
    # Recorded: a look less and another choice; synthetic: a look less and another choice.
    assert report.changed == 4
    assert report.render().endswith(
        f"2 recorded and {len(SYNTHETIC)} synthetic moments: 4 decisions would have changed"
    )


@pytest.mark.parametrize("source", [DEFAULT, SAME])
async def test_one_that_decides_like_the_default_is_inert(source: str) -> None:
    report = await check(source, (), POLICY)
    assert (report.accepted, report.stage) == (False, Stage.EFFECT)
    assert "would have changed no decision" in report.render()


@pytest.mark.parametrize(
    ("source", "stage", "said"),
    [
        ("", Stage.SIZE, "empty"),
        ("def study(hook, record):\n    return None\n", Stage.CONFORMANCE, "rename study to research"),
        ("def research(hook):\n    return None\n", Stage.CONFORMANCE, "wrong arguments"),
        ("def research(hook, record):\n    return open('x')\n", Stage.LANGUAGE, "open"),
        ("def research(hook, record):\n    return 7\n", Stage.REPLAY, "must return True, False or None for look"),
        ("def research(hook, record):\n    return record['nothing']\n", Stage.REPLAY, "KeyError"),
        ("def research(hook, record):\n    while True:\n        pass\n", Stage.REPLAY, "no answer within"),
        (
            "def research(hook, record):\n    return 9 if hook == 'hypotheses' else None\n",
            Stage.REPLAY,
            "must return 1 to 8 for hypotheses; it returned 9",
        ),
    ],
)
async def test_a_rejection_names_the_stage_and_what_is_wrong(source: str, stage: Stage, said: str) -> None:
    report = await check(source, (), POLICY)
    assert (report.accepted, report.stage) == (False, stage)
    assert said in report.render()


async def test_an_answer_is_asked_of_a_fresh_worker_and_a_failure_is_typed() -> None:
    assert await ask(PATIENT, ProcedureHook.LOOK, {"since_improvement": 2}, POLICY) is False
    assert await ask(PATIENT, ProcedureHook.FIELDS, {}, POLICY) is None
    with pytest.raises(FunctionFailure) as failed:
        await ask(PATIENT, ProcedureHook.LOOK, {}, POLICY)
    assert failed.value.kind is FailureKind.RAISED


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x), max_leaves=9
    )
)
def test_an_answer_is_of_the_hooks_own_type_or_refused(answer: Any) -> None:
    for hook in ProcedureHook:
        try:
            judged = _judged(hook, answer, {"candidates": [{}, {}]})
        except (TypeError, ValueError) as error:
            assert str(error).startswith("must return")  # noqa: PT017
            continue
        match hook:
            case ProcedureHook.LOOK:
                assert judged is None or type(judged) is bool
            case ProcedureHook.HYPOTHESES:
                assert judged is None or 1 <= judged <= 8
            case ProcedureHook.FIELDS:
                assert judged is None or all(1 <= len(field) <= 80 for field in judged)
            case ProcedureHook.SCORE:
                assert judged is None or len(judged) == 2


def test_the_highest_score_is_built_and_the_critiques_choice_wins_ties() -> None:
    assert best([0.0, 2.0], CANDIDATES, "new") == "library:tabu"
    assert best([1.0, 1.0], CANDIDATES, "library:tabu") == "library:tabu"
