"""Installed mechanisms: judged, called, counted, believed or suspended."""

import psutil
import pytest
from bilevel.v1 import common_pb2, trace_pb2
from bilevel.v1 import inner_pb2 as pb

from mechanisms.fence import fenced
from mechanisms.standard import sources

PROPOSER = '''
class Mechanism:
    """Bisection: propose the middle between the incumbent and three."""

    def propose(self, view, count):
        x = view.incumbent.configuration["x"]
        return [Candidate(changes={"x": 3.0 + (x - 3.0) / 4}, hypothesis="bisect")]
'''
VETO = '''
class Mechanism:
    """No fancy: refuse every change of mode."""

    def veto(self, view, candidate):
        return "mode is decoration" if "mode" in candidate.changes else None
'''
REVISER = '''
class Mechanism:
    """Rounder: round x to whole numbers."""

    def revise(self, view, candidate):
        if "x" not in candidate.changes or candidate.changes["x"] == round(candidate.changes["x"]):
            return None
        changes = dict(candidate.changes)
        changes["x"] = float(round(changes["x"]))
        return Candidate(changes=changes, hypothesis=candidate.hypothesis)
'''
RANKER = '''
class Mechanism:
    """Smallest first: prefer the smallest x."""

    def rank(self, view, candidates):
        return [-candidate.changes.get("x", 100.0) for candidate in candidates]
'''
GENEROUS = '''
class Mechanism:
    """Generous: keep everything that was measured."""

    def accept(self, view, trial):
        return True
'''
FRUGAL = '''
class Mechanism:
    """Frugal: a quarter of the budget for everything."""

    def budget(self, view, candidate):
        return 0.25
'''
ADVISER = '''
class Mechanism:
    """Adviser: say how many trials there were."""

    def __init__(self, space, settings, rng):
        self.word, self.seen = settings.get("word", "trials"), 0

    def observe(self, trial):
        self.seen += 1

    def prompt(self, view):
        return f"{self.seen} {self.word} so far"
'''
LATE_FAILURE = '''
class Mechanism:
    """Late failure: raises once x is below 7, which the replay has not seen with a hypothesis of the model."""

    def veto(self, view, candidate):
        if candidate.hypothesis == "now":
            return [].pop()
        return "never y" if "y" in candidate.changes else None
'''
INERT = '''
class Mechanism:
    """Nothing: has no opinion."""

    def veto(self, view, candidate):
        return None
'''
REJECTED = {
    "GATE_STAGE_SIZE": " ",
    "GATE_STAGE_LANGUAGE": "import os\nclass Mechanism:\n    def prompt(self, view):\n        return os.name\n",
    "GATE_STAGE_CONFORMANCE": "class Mechanism:\n    def prompt(self):\n        return ''\n",
    "GATE_STAGE_REPLAY": "class Mechanism:\n    def prompt(self, view):\n        while True:\n            pass\n",
    "GATE_STAGE_EFFECT": INERT,
}


@pytest.mark.parametrize(("stage", "source"), REJECTED.items(), ids=REJECTED)
async def test_what_the_gate_rejects_is_not_installed_and_the_report_comes_with_the_error(inner, stage, source) -> None:
    name = await inner.create()
    await inner.one_trial(name)
    error = await inner.refusal(inner.install(name, source))
    assert error.code == "FAILED_PRECONDITION"
    assert "the gate rejected mechanism 'probe'" in error.message
    report = trace_pb2.GateReport()
    assert [detail.Unpack(report) for detail in error.attachments] == [True]
    assert report.verdict == trace_pb2.GATE_VERDICT_REJECTED
    assert trace_pb2.GateStage.Name(report.stage) == stage
    assert report.findings[0].message
    event = await inner.until(name, lambda e: e.HasField("mechanism_rejected"))
    assert event.mechanism_rejected.source == source
    assert event.mechanism_rejected.report.text
    assert not (await inner.stub.ListMechanisms(pb.ListMechanismsRequest(parent=name))).mechanisms


async def test_a_check_says_the_same_and_installs_nothing(inner) -> None:
    name = await inner.create()
    last = (await inner.run(name)).last_sequence
    report = (await inner.stub.CheckMechanism(pb.CheckMechanismRequest(run=name, source=INERT))).report
    assert trace_pb2.GateStage.Name(report.stage) == "GATE_STAGE_EFFECT"
    request = pb.CheckMechanismRequest(run=name, source=INERT, allow_inert=True)
    assert (await inner.stub.CheckMechanism(request)).report.verdict == trace_pb2.GATE_VERDICT_ACCEPTED
    assert (await inner.run(name)).last_sequence == last


async def test_an_inert_mechanism_is_installed_only_on_request(inner) -> None:
    name = await inner.create(max_trials=1)
    mechanism = await inner.install(name, INERT, "control", allow_inert=True, author="a person")
    assert (mechanism.state, mechanism.author) == (trace_pb2.MECHANISM_STATE_ACTIVE, "a person")
    await inner.start(name)
    await inner.finished(name)
    effect = (await inner.mechanism(name, "control")).effect
    assert effect.changed_decisions == 0
    assert [(trace_pb2.MechanismHook.Name(h.hook), h.calls) for h in effect.hooks] == [
        ("MECHANISM_HOOK_OBSERVE", 2),
        ("MECHANISM_HOOK_VETO", 1),
    ]


async def test_an_installed_mechanism_carries_its_source_report_and_walls(inner) -> None:
    name = await inner.create()
    mechanism = await inner.install(name, PROPOSER, "bisection")
    assert mechanism.name == f"{name}/mechanisms/bisection"
    assert mechanism.source == PROPOSER
    assert mechanism.summary.startswith("Bisection")
    assert mechanism.report.verdict == trace_pb2.GATE_VERDICT_ACCEPTED
    assert mechanism.sandbox_layers
    assert mechanism.installed_after_trial == -1
    error = await inner.refusal(inner.install(name, PROPOSER, "bisection"))
    assert error.code == "ALREADY_EXISTS"


async def test_a_mechanisms_candidate_runs_in_place_of_the_models_and_the_trace_says_so(inner) -> None:
    name = await inner.create(max_trials=2)
    await inner.install(name, PROPOSER, "bisection")
    await inner.start(name)
    events = await inner.finished(name)
    [_, first, second] = await inner.trials(name)
    assert (first.origin, first.proposer) == (trace_pb2.TRIAL_ORIGIN_MECHANISM, "bisection")
    assert list(first.changed_by) == ["bisection"]
    assert second.configuration.values["x"].double_value == pytest.approx(3 + 5 / 16)
    changed = inner.of(events, "decision_changed")
    assert len(changed) == 2
    assert changed[0].before == "x 8 → 5.5 (model: go half the way)"
    assert changed[0].after == "x 8 → 4.25 (bisection: bisect)"
    effect = (await inner.mechanism(name, "bisection")).effect
    assert (effect.changed_decisions, effect.proposed_trials, effect.kept_trials) == (2, 2, 2)


async def test_two_proposing_mechanisms_take_turns(inner) -> None:
    name = await inner.create(max_trials=4)
    await inner.install(name, PROPOSER, "a")
    await inner.install(name, PROPOSER.replace("/ 4", "/ 3"), "b")
    await inner.start(name)
    await inner.finished(name)
    assert [t.proposer for t in await inner.trials(name)][1:] == ["a", "b", "a", "b"]


async def test_a_mechanism_that_proposes_what_the_model_does_changes_nothing(inner) -> None:
    name = await inner.create(max_trials=1)
    await inner.install(name, PROPOSER.replace("/ 4", "/ 2"), "echo")
    await inner.start(name)
    assert not inner.of(await inner.finished(name), "decision_changed")


async def test_a_vetoed_candidate_is_a_rejected_trial_and_the_model_is_asked_again_with_the_reason(
    inner, endpoint
) -> None:
    answers = [{"mode": "fancy"}, {"x": 4.0}]
    endpoint.answer = lambda _: [(answers.pop(0), "try")]
    name = await inner.create(max_trials=1)
    await inner.install(name, VETO, "no-fancy")
    await inner.start(name)
    events = await inner.finished(name)
    [_, rejected, kept] = await inner.trials(name)
    assert (rejected.state, rejected.message) == (trace_pb2.TRIAL_STATE_REJECTED, "mode is decoration")
    assert kept.state == trace_pb2.TRIAL_STATE_KEPT
    assert inner.of(events, "trial_rejected")[0].mechanism == "no-fancy"
    [changed] = inner.of(events, "decision_changed")
    assert changed.before.startswith('run mode "plain" → "fancy"')
    assert changed.after == "refuse it: mode is decoration"
    assert endpoint.states[-1]["refused"][0]["reason"] == "mode is decoration"


async def test_a_revised_candidate_runs_as_revised(inner) -> None:
    name = await inner.create(max_trials=1)
    await inner.install(name, REVISER, "rounder")
    await inner.start(name)
    events = await inner.finished(name)
    [_, trial] = await inner.trials(name)
    assert trial.configuration.values["x"].double_value == 6.0
    assert trial.origin == trace_pb2.TRIAL_ORIGIN_MODEL
    [changed] = inner.of(events, "decision_changed")
    assert (changed.before[:9], changed.after[:7]) == ("x 8 → 5.5", "x 8 → 6")


async def test_ranking_chooses_among_more_candidates_than_are_needed(inner, endpoint) -> None:
    endpoint.answer = lambda state: [({"x": x}, "guess") for x in (6.0, 4.0, 5.0)[: state["count"]]]
    name = await inner.create(max_trials=1)
    await inner.install(name, RANKER, "smallest")
    await inner.start(name)
    events = await inner.finished(name)
    assert endpoint.states[0]["count"] == 3
    [_, trial] = await inner.trials(name)
    assert trial.configuration.values["x"].double_value == 4.0
    [changed] = inner.of(events, "decision_changed")
    assert (changed.before[:7], changed.after[:7]) == ("x 8 → 6", "x 8 → 4")


async def test_acceptance_can_move_the_incumbent_to_a_worse_trial_and_never_loses_the_best(inner, endpoint) -> None:
    endpoint.answer = lambda _: [({"x": 10.0, "y": 5}, "outwards")]
    name = await inner.create(max_trials=1)
    await inner.install(name, GENEROUS, "generous")
    await inner.start(name)
    events = await inner.finished(name)
    run = await inner.run(name)
    assert (run.incumbent_trial, run.best_trial) == (f"{name}/trials/1", f"{name}/trials/0")
    [changed] = inner.of(events, "decision_changed")
    assert changed.before.startswith("discard: worse than the incumbent")
    assert changed.after == "keep, on the advice of generous"


async def test_the_last_installed_adviser_has_the_last_word(inner) -> None:
    name = await inner.create(max_trials=1)
    await inner.install(name, GENEROUS, "generous")
    await inner.install(name, GENEROUS.replace("return True", "return False"), "strict")
    await inner.start(name)
    events = await inner.finished(name)
    [_, trial] = await inner.trials(name)
    assert trial.state == trace_pb2.TRIAL_STATE_DISCARDED
    assert [c.mechanism for c in inner.of(events, "decision_changed")] == ["strict"]


async def test_a_shortened_trial_cannot_become_the_best(inner, task) -> None:
    name = await inner.create(max_trials=1)
    await inner.install(name, FRUGAL, "frugal")
    await inner.start(name)
    events = await inner.finished(name)
    [_, trial] = await inner.trials(name)
    assert trial.budget_fraction == task.requests[-1].budget_fraction == 0.25
    assert trial.state == trace_pb2.TRIAL_STATE_DISCARDED
    assert "25% of the budget" in trial.message
    assert (await inner.run(name)).best_trial == f"{name}/trials/0"
    assert [(c.before, c.after) for c in inner.of(events, "decision_changed")] == [
        ("spend the full budget", "spend 25.0% of it")
    ]


async def test_what_a_mechanism_says_is_fenced_in_the_prompt_and_settings_reach_it(inner, endpoint) -> None:
    name = await inner.create(max_trials=2)
    settings = common_pb2.Configuration(values={"word": common_pb2.Value(string_value="attempts")})
    await inner.install(name, ADVISER, "adviser", settings=settings)
    await inner.start(name)
    events = await inner.finished(name)
    content = endpoint.prompts[-1][-1]["content"]
    assert fenced("adviser", "2 attempts so far") in content
    [mechanism] = endpoint.states[-1]["mechanisms"]
    assert (mechanism["name"], mechanism["prompt"]) == ("adviser", "2 attempts so far")
    assert not inner.of(events, "decision_changed"), "a prompt text is an influence and no changed decision"


async def test_a_mechanism_that_raises_is_suspended_and_the_trial_goes_on_without_it(inner, endpoint) -> None:
    endpoint.answer = lambda state: [({"x": 6.0 - state["trials_left"]}, "now" if state["trials_left"] == 1 else "")]
    name = await inner.create(max_trials=2)
    await inner.install(name, LATE_FAILURE, "fragile")
    pid = inner.runs._loops._open[name.split("/")[1]].mechanisms._members[0].process.pid
    await inner.start(name)
    events = await inner.finished(name)
    run = await inner.run(name)
    assert (run.state, run.decided_trials) == (trace_pb2.RUN_STATE_FINISHED, 2)
    [suspended] = inner.of(events, "mechanism_suspended")
    assert (suspended.mechanism, suspended.kind, suspended.trial) == ("fragile", "raised", 2)
    assert "IndexError" in suspended.message
    assert suspended.line == 7
    mechanism = await inner.mechanism(name, "fragile")
    assert mechanism.state == trace_pb2.MECHANISM_STATE_SUSPENDED
    assert "IndexError" in mechanism.state_reason
    assert not psutil.pid_exists(pid), "its process is gone"


async def test_a_mechanism_installed_while_the_run_runs_acts_from_the_next_trial_on(inner, task) -> None:
    task.hold_after(1)
    name = await inner.create(max_trials=3)
    await inner.start(name)
    await task.started.get()
    await task.started.get()
    mechanism = await inner.install(name, PROPOSER, "bisection")
    generous = await inner.install(name, GENEROUS.replace("True", "False"), "strict")
    assert mechanism.installed_after_trial == generous.installed_after_trial == 1
    task.gate.set()
    await inner.finished(name)
    trials = await inner.trials(name)
    assert [t.proposer for t in trials] == ["", "", "bisection", "bisection"]
    assert [t.state for t in trials] == [4, 4, 5, 5]


async def test_an_uninstalled_mechanism_is_asked_no_more(inner) -> None:
    name = await inner.create(max_trials=2)
    await inner.install(name, PROPOSER, "bisection")
    await inner.one_trial(name)
    await inner.one_trial(name)
    request = pb.UninstallMechanismRequest(name=f"{name}/mechanisms/bisection", reason="no longer needed")
    mechanism = (await inner.stub.UninstallMechanism(request)).mechanism
    assert mechanism.state == trace_pb2.MECHANISM_STATE_UNINSTALLED
    assert mechanism.effect.changed_decisions == 1
    assert (await inner.one_trial(name)).origin == trace_pb2.TRIAL_ORIGIN_MODEL
    event = await inner.until(name, lambda e: e.HasField("mechanism_uninstalled"))
    assert event.mechanism_uninstalled.effect.changed_decisions == 1
    assert (await inner.refusal(inner.stub.UninstallMechanism(request))).reason == "WRONG_STATE"


async def test_the_processes_of_a_run_end_with_it(inner) -> None:
    name = await inner.create(max_trials=1)
    await inner.install(name, PROPOSER, "bisection")
    worker = psutil.Process(inner.runs._loops._open[name.split("/")[1]].mechanisms._members[0].process.pid)
    await inner.start(name)
    await inner.finished(name)
    worker.wait(5)


async def test_a_second_service_gives_a_mechanism_its_state_back_by_replay(serve_inner, endpoint) -> None:
    async with serve_inner() as inner:
        name = await inner.create(max_trials=5)
        await inner.install(name, ADVISER, "adviser")
        for _ in range(3):
            await inner.one_trial(name)
    async with serve_inner() as inner:
        await inner.one_trial(name)
        assert endpoint.states[-1]["mechanisms"][0]["prompt"] == "3 trials so far"
        event = await inner.until(name, lambda e: e.HasField("mechanism_replayed"))
        assert (event.mechanism_replayed.trials, event.mechanism_replayed.matches) == (3, True)


@pytest.mark.long
async def test_every_standard_mechanism_can_be_installed_into_a_run_with_history(inner, endpoint) -> None:
    endpoint.answer = lambda state: [({"x": 8.0 - state["trials_left"] % 3, "y": state["trials_left"] % 7}, "walk")]
    name = await inner.create(max_trials=8)
    for _ in range(7):
        await inner.one_trial(name)
    for standard, source in sources().items():
        await inner.install(name, source, standard.replace("_", "-"), allow_inert=True)
    await inner.start(name)
    events = await inner.finished(name)
    assert not inner.of(events, "mechanism_suspended")
