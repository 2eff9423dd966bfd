"""The gate's verdicts, each at its stage, with a line and something to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from mechanisms import reference, standard
from mechanisms.findings import Stage
from mechanisms.gate import GateReport, check
from mechanisms.interface import Hook
from mechanisms.sandbox.limits import SandboxLimits


@pytest.fixture
def judge(space: Any, objective: Any, history: Any) -> Any:
    async def judge(source: str, **options: Any) -> GateReport:
        options.setdefault("history", history)
        return await check(source, space=space, objective=objective, **options)

    return judge


VETO = """
class Mechanism:
    '''Refuse depth: no change of DEPTH.'''
    def veto(self, view, candidate):
        return "depth is settled" if "DEPTH" in candidate.changes else None
"""


async def test_a_verdict_does_not_depend_on_what_the_mechanism_will_be_called(judge: Any) -> None:
    # The outer loop's check has no name yet, the installation has: the mechanism's own seed follows from it.
    checked, installed = [await judge(VETO, seed=seed, synthetic_seed=7, history=()) for seed in (1, 2)]
    assert checked.synthetic.changed == installed.synthetic.changed
    elsewhere = [(await judge(VETO, synthetic_seed=seed, history=())).synthetic.changed for seed in (8, 9, 10)]
    assert len({checked.synthetic.changed, *elsewhere}) > 1


async def test_a_mechanism_that_changes_decisions_is_accepted_with_its_counts(judge: Any) -> None:
    report = await judge(VETO)
    assert report.accepted, report.render()
    assert report.stage is Stage.EFFECT
    assert (report.name, report.summary) == ("refuse_depth", "Refuse depth: no change of DEPTH.")
    assert report.hooks == {Hook.VETO}
    assert report.recorded.trials == 20
    assert report.recorded.hooks[Hook.VETO].changed == report.recorded.changed > 0
    assert report.synthetic.trials >= 80
    assert "seccomp" in report.layers
    assert report.to_json()["replay"]["recorded"]["changed_decisions"] == report.recorded.changed
    assert "decisions would have changed" in report.render()


@pytest.mark.parametrize("recorded", [0, 1])
async def test_an_empty_or_baseline_only_history_is_judged_on_the_synthetic_one(
    judge: Any, history: Any, recorded: int
) -> None:
    report = await judge(VETO, history=history[:recorded])
    assert report.accepted
    assert report.recorded.trials == 0
    assert report.statistics()[Hook.VETO].changed > 0


@pytest.mark.parametrize("name", sorted(standard.sources()))
async def test_every_standard_mechanism_passes_unchanged(judge: Any, name: str) -> None:
    report = await judge(standard.sources()[name])
    assert report.accepted, report.render()
    assert report.summary
    assert not [finding for finding in report.findings if finding.stage is Stage.REPLAY], report.render()


async def test_the_example_of_the_reference_passes(judge: Any) -> None:
    assert (await judge(reference.EXAMPLE)).accepted


@pytest.mark.parametrize(
    ("source", "message"),
    [("", "empty"), ("  \n", "empty"), ("x = '\x00'", "null"), ("x = '\ud800'", "Unicode"), ("#" * 70_000, "bytes")],
)
async def test_what_is_no_text_of_acceptable_length_stops_at_size(judge: Any, source: str, message: str) -> None:
    report = await judge(source)
    assert report.stage is Stage.SIZE
    assert not report.accepted
    assert message in report.findings[0].message


@pytest.mark.parametrize(
    ("source", "line", "message", "hint"),
    [
        ("class Mechanism\n    pass", 1, "not valid Python", ""),
        ("import os\nx = os.path", 1, "module os is not available", "modules: "),
        ("import numpy as np\nx = np.zeros(3)", 1, "module numpy", "linalg"),
        ("from math import sqroot\nx = sqroot(2)", 1, "math offers no sqroot", "did you mean sqrt?"),
        ("import math\n\nx = math.sqr(2)", 3, "math offers no sqr", "sqrt"),
        ("x = math.pi", 1, "the name math is not defined", "add: import math"),
        ("x = deque()", 1, "the name deque is not defined", "add: from collections import deque"),
        ("x = ().__class__", 1, "__class__ is not available", ""),
        ("def f(g):\n    return g.gi_frame", 2, "interpreter frame", ""),
        ("def f():\n    x = 1\n    def g():\n        nonlocal x\n", 4, "nonlocal", "attribute of self"),
        ("x = open('/etc/passwd')", 1, "the name open", "not available"),
        ("hidden1_x = 1", 1, "reserved", ""),
        ("x = " + "-" * 200 + "1", 1, "deep", ""),
    ],
)
async def test_what_is_outside_the_language_is_named_with_line_and_hint(
    judge: Any, source: str, line: int, message: str, hint: str
) -> None:
    report = await judge(source)
    assert report.stage is Stage.LANGUAGE
    finding = report.findings[0]
    assert finding.line == line
    assert message in finding.message
    assert hint in finding.hint


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("x = 1", "no class Mechanism", "write one class"),
        ("class Mechanizm:\n    def veto(self, view, candidate): pass", "no class Mechanism", "rename Mechanizm"),
        ("class Mechanism:\n    pass", "no hook", "propose"),
        ("class Mechanism:\n    def veto(self, candidate): pass", "wrong arguments", "def veto(self, view, candidate)"),
        ("class Mechanism:\n    def veto(self, *args): pass", "wrong arguments", "def veto"),
        ("class Mechanism:\n    def proposal(self, view, count): pass", "not a hook", "did you mean propose?"),
        ("class Mechanism:\n    def Propose(self, view, count): pass", "not a hook", "did you mean propose?"),
        (
            "class Mechanism:\n    def veto(self, view, candidate): pass\n    def __init__(self): pass",
            "__init__",
            "rng",
        ),
        (
            VETO + "    def __init__(self, space, settings, rng): 1/0",
            "__init__ raised",
            "",
        ),
    ],
)
async def test_what_has_not_the_shape_of_a_mechanism_stops_at_conformance(
    judge: Any, source: str, message: str, hint: str
) -> None:
    report = await judge(source)
    assert report.stage is Stage.CONFORMANCE
    assert any(message in finding.message and hint in finding.hint for finding in report.findings), report.render()


HOOKS = {
    "raises": ("observe(self, trial)", "raise ValueError('no')", "observe raised"),
    "hangs": ("observe(self, trial)", "while True: pass", "timed out"),
    "answers with a wrong type": ("veto(self, view, candidate)", "return 3", "must return a reason"),
    "changes a locked parameter": ("propose(self, view, count)", "return [Candidate({'SEED': 2})]", "SEED"),
    "leaves the range": ("propose(self, view, count)", "return [Candidate({'DEPTH': 99})]", "from 1 to 16"),
    "scores with nan": ("rank(self, view, candidates)", "return [float('nan')] * len(candidates)", "finite"),
    "accepts with a number": ("accept(self, view, trial)", "return 1", "True, False or None"),
    "spends nothing": ("budget(self, view, candidate)", "return 0.0", "from 0.01 to 1"),
    "vetoes everything": ("veto(self, view, candidate)", "return 'no'", "stops the search"),
}


@pytest.mark.parametrize("case", HOOKS)
async def test_a_hook_that_fails_in_replay_is_rejected_there(judge: Any, case: str) -> None:
    signature, body, message = HOOKS[case]
    source = f"class Mechanism:\n    def {signature}:\n        {body}\n"
    report = await judge(source, limits=SandboxLimits(call_seconds=0.3))
    assert report.stage is Stage.REPLAY, report.render()
    assert not report.accepted
    assert message in report.findings[0].message


async def test_a_raising_hook_is_reported_with_its_line(judge: Any) -> None:
    report = await judge("class Mechanism:\n    def observe(self, trial):\n        x = {}\n        return x['a']\n")
    assert report.findings[0].line == 4
    assert "KeyError" in report.findings[0].message


async def test_answers_that_depend_on_addresses_are_rejected(judge: Any) -> None:
    source = "class Mechanism:\n    def prompt(self, view):\n        return repr(lambda: 0)\n"
    report = await judge(source)
    assert report.stage is Stage.REPLAY
    assert "different answers" in report.findings[0].message


async def test_an_inert_mechanism_is_rejected_unless_it_is_asked_for(judge: Any) -> None:
    source = "class Mechanism:\n    def veto(self, view, candidate):\n        return None\n"
    report = await judge(source)
    assert (report.accepted, report.stage) == (False, Stage.EFFECT)
    assert "inert" in report.findings[0].message
    assert (await judge(source, allow_inert=True)).accepted


async def test_a_mechanism_with_prompt_text_only_is_not_inert(judge: Any) -> None:
    report = await judge("class Mechanism:\n    def prompt(self, view):\n        return 'be bold'\n")
    assert report.accepted
    assert report.recorded.prompted == 20
    assert report.recorded.changed == 0


async def test_language_only_runs_nothing(judge: Any) -> None:
    report = await judge(VETO + "    def __init__(self, space, settings, rng): 1/0\n", language_only=True)
    assert report.accepted
    assert report.stage is Stage.CONFORMANCE


async def test_misbehaviour_on_long_histories_is_found(judge: Any) -> None:
    source = "class Mechanism:\n    def prompt(self, view): return 'x' if len(view.history) < 60 else 1 / 0"
    report = await judge(source)
    assert report.stage is Stage.REPLAY
    assert "synthetic" in report.findings[0].message


async def test_state_that_observations_do_not_bring_back_is_remarked(judge: Any) -> None:
    source = """
class Mechanism:
    def __init__(self, space, settings, rng): self.asked = 0
    def observe(self, trial): pass
    def prompt(self, view):
        self.asked += 1
        return str(self.asked)
"""
    report = await judge(source)
    assert report.accepted
    assert "hooks other than observe change its state" in report.findings[0].message
